"""How well a model does on images, and how far a compressed model is from the dense one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.data.evaluation_data import BATCH_SIZE, Data, open_data
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.statistics import PairedDifference, paired_points

# Called after each batch with the images done and the images in all (None for a stream).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent; `correct` (bool, one an image) is top-1's, for paired statistics.

    `top5` is None for fewer than five classes.
    """

    data: str
    images: int
    top1: float
    top5: float | None
    correct: Tensor


@dataclass(frozen=True)
class Agreement:
    """How alike two models are on images that need no labels.

    `top1` is the percentage of images that both put in the same class; `kl` the mean over the
    images of KL(dense || compressed), in nats.
    """

    data: str
    images: int
    top1: float
    kl: float


def evaluate(
    model: nn.Module,
    data: str | Data = "fmnist",
    *,
    images: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Top-1 and top-5 accuracy of `model`; the same every time on one machine.

    Args:
        model: gives logits (B, classes) for images (B, C, H, W). It is moved to `device`, and
            run in eval mode; its modules' modes are restored.
        data: an open `Data`, or what `open_data` takes with `images` and `batch_size`.
        progress: called after each batch.

    An image whose logits are not all finite counts as wrong.

    Raises:
        UsageError: `model` is no module, the data has no labels for it, or `open_data` refuses it.
        VqzooError: the data cannot be read, or holds no image.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"{model!r:.200} is not a network: vqzoo.load gives one")
    opened = _opened(data, model, images, batch_size)
    if not opened.labelled:
        raise UsageError(
            f"{opened.name} has no labels for this model ({opened.unlabelled}): only agreement "
            "with the dense model can be measured on it"
        )
    first: list[Tensor] = []
    fifth: list[Tensor] = []
    with evaluating(model, device):
        for x, y in labelled(opened, progress):
            logits = model(x.to(device))
            if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
                raise VqzooError(
                    f"{opened.name} has the labels {int(y.min())} to {int(y.max())}, the model "
                    f"{logits.shape[1]} classes: they do not belong together"
                )
            best = logits.topk(min(5, logits.shape[1])).indices
            hits = (best == y.to(device)[:, None]) & logits.isfinite().all(1, keepdim=True)
            first.append(hits[:, 0].cpu())
            fifth.append(hits.any(1).cpu())
            classes = logits.shape[1]
    correct = torch.cat(first)
    return Evaluation(
        data=opened.name,
        images=len(correct),
        top1=_percent(correct),
        top5=_percent(torch.cat(fifth)) if classes >= 5 else None,
        correct=correct,
    )


def agreement(
    dense: nn.Module,
    compressed: nn.Module,
    data: str | Data = "fmnist",
    *,
    images: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Agreement:
    """How far `compressed` is from `dense` on the same batches; labels are not looked at.

    Arguments as for `evaluate`; the images are preprocessed for `dense`. KL is computed in
    float64 and is infinite or NaN where the logits are.

    Raises:
        UsageError: `open_data` refuses the data, or the models' outputs differ in shape.
        VqzooError: the data cannot be read, or holds no image.
    """
    opened = _opened(data, dense, images, batch_size)
    same: list[Tensor] = []
    divergence: list[Tensor] = []
    with evaluating(dense, device), evaluating(compressed, device):
        for x, _ in _counted(opened, progress):
            x = x.to(device)
            p, q = dense(x).double(), compressed(x).double()
            if p.shape != q.shape:
                raise UsageError(
                    f"the models have {p.shape[1]} and {q.shape[1]} classes: nothing to compare"
                )
            same.append((p.argmax(1) == q.argmax(1)).cpu())
            kl = F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True)
            divergence.append(kl.sum(1).cpu())
    alike = torch.cat(same)
    return Agreement(
        data=opened.name,
        images=len(alike),
        top1=_percent(alike),
        kl=float(torch.cat(divergence).mean()),
    )


def paired_difference(a: Evaluation, b: Evaluation) -> PairedDifference:
    """Top-1 of `b` less top-1 of `a`, in points, from the same images.

    The interval is Wald's from the paired differences d_i in {-1, 0, 1}: 1.96 s_d / sqrt(n), s_d
    with n - 1 in the denominator. It is 0 wide where the two agree on every image.

    Raises:
        ValueError: the evaluations are not of the same images, or of fewer than two.
    """
    if a.data != b.data or a.images != b.images:
        raise ValueError(f"{a.images} of {a.data} and {b.images} of {b.data}: not paired")
    return paired_points(a.correct.double(), b.correct.double())


def _opened(data: str | Data, model: nn.Module, images: int | None, batch_size: int | None) -> Data:
    if isinstance(data, str):
        size = BATCH_SIZE if batch_size is None else batch_size
        return open_data(data, model, images=images, batch_size=size)
    if images is not None or batch_size is not None:
        raise ValueError("images and batch_size belong to open_data where the data is open already")
    return data


def labelled(data: Data, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of `data`, a batch at a time, each reported to `progress`.

    Raises:
        VqzooError: there is none.
        ValueError: a batch has no labels, though `data` says that all have.
    """
    for x, y in _counted(data, progress):
        if y is None:
            raise ValueError(f"{data.name} says it is labelled, but gives no labels")
        yield x, y


def _counted(data: Data, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches of `data`, each reported to `progress` once it has been used.

    Raises:
        VqzooError: there is none.
    """
    done = 0
    for batch in data:
        yield batch
        done += len(batch.images)
        if progress is not None:
            progress(done, data.images)
    if done == 0:
        raise VqzooError(f"{data.name} holds no image")


@contextmanager
def evaluating(model: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Eval mode and no gradients on `device`; every module's own mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _percent(flags: Tensor) -> float:
    return 100 * int(flags.sum()) / len(flags)
