"""Accuracy of a network on images, and agreement of a compressed network with the dense one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.data.class_map import ClassMap
from vqzoo.data.evaluation_data import BATCH_SIZE, Data, open_data
from vqzoo.data.model_input import input_size
from vqzoo.data.sources import READ_ALL, ReadOptions
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.answers import logits_of
from vqzoo.evaluation.statistics import PairedDifference, paired_points
from vqzoo.wrappers import as_network

# Called after each batch with the number of images done and in total (None for a stream).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a network on a data set.

    Attributes:
        data: name of the data.
        images: number of images.
        top1: percentage of images whose label is the largest logit.
        top5: percentage of images whose label is among the five largest logits; None if there are
            fewer than five classes.
        correct: bool, (images,): whether top-1 is right, for paired statistics.
        labels: how class folders became labels; empty for other data.
        unreadable: names of the images that were left out because they cannot be read.
    """

    data: str
    images: int
    top1: float
    top5: float | None
    correct: Tensor
    labels: str = ""
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Agreement of two networks on images, which need no labels.

    Attributes:
        data: name of the data.
        images: number of images.
        top1: percentage of images for which both predict the same class.
        kl: mean over the images of KL(dense || compressed), in nats.
        logit_change: half the squared change of the centred logits, mean over the images.
    """

    data: str
    images: int
    top1: float
    kl: float
    logit_change: float


def evaluate(
    model: nn.Module,
    data: str | Data = "fmnist",
    *,
    images: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    class_map: ClassMap | None = None,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy; the result is deterministic on one machine.

    An image whose logits are not all finite counts as wrong.

    Args:
        model: maps images (B, C, H, W) to logits (B, classes); in any precision. It is moved to
            `device` and run in eval mode; the modes of its modules are restored. Of a network in
            `DataParallel`, `torch.compile` and the like, the network inside is run.
        data: an open `Data`, or text for `open_data`: "fmnist", "imagefolder:PATH".
        images: at most this many images; None for all. Only for data given as text.
        batch_size: images per batch. Only for data given as text.
        device: where to run the model.
        class_map: the class of each folder of "imagefolder:PATH", as a file or a mapping; see
            `vqzoo.data.class_map`.
        skip_unreadable: leave out images that cannot be read, with a warning, instead of failing.
        progress: called after each batch.

    Raises:
        UsageError: `model` is not a module, the data has no labels for it, `open_data` refuses the
            data, or the model returns something else than logits.
        VqzooError: the data cannot be read, holds no image, or has labels that the model lacks; or
            the model fails on the images.
        ValueError: options of the data are given with an open `Data`.
    """
    model = as_network(model)
    read = ReadOptions(class_map, skip_unreadable)
    counted = _count_classes(model, device) if isinstance(data, str) else None
    opened = _opened(data, model, images, batch_size, read, counted)
    if not opened.labelled:
        raise UsageError(
            f"{opened.name} has no labels for this model ({opened.unlabelled}): measure its "
            "agreement with the dense model instead"
        )
    first: list[Tensor] = []
    fifth: list[Tensor] = []
    with evaluating(model, device):
        for x, y in labelled(opened, progress):
            logits = logits_of(model, x.to(device))
            if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
                raise VqzooError(
                    f"{opened.name} has the labels {int(y.min())} to {int(y.max())}, the model "
                    f"{logits.shape[1]} classes: choose data of the model's classes"
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
        labels=opened.labels,
        unreadable=opened.unreadable,
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
    answers: Tensor | None = None,
) -> Agreement:
    """Compare two networks on the same images, without labels.

    KL is computed in float64; it is infinite or NaN where the logits are.

    Args:
        dense: the reference; images are preprocessed for it.
        compressed: the network to compare with it.
        data: as for `evaluate`, like the arguments that follow.
        images: at most this many images; None for all.
        batch_size: images per batch.
        device: where to run both networks.
        progress: called after each batch.
        answers: what `answers_of` gave for the dense network, which then does not run.

    Raises:
        UsageError: `open_data` refuses the data, the networks differ in their classes, or one
            returns something else than logits.
        VqzooError: the data cannot be read or holds no image, or a network fails on the images.
        ValueError: `images` or `batch_size` is given with an open `Data`.
    """
    dense, compressed = as_network(dense), as_network(compressed)
    opened = _opened(data, dense, images, batch_size, READ_ALL, None)
    same: list[Tensor] = []
    divergence: list[Tensor] = []
    changes: list[Tensor] = []
    with evaluating(dense, device), evaluating(compressed, device):
        for x, _ in _counted(opened, progress):
            x = x.to(device)
            if answers is None:
                p = logits_of(dense, x).double()
            else:
                p, answers = answers[: len(x)].to(device).double(), answers[len(x) :]
            q = logits_of(compressed, x).double()
            if p.shape != q.shape:
                raise UsageError(
                    f"models of {p.shape[1]} and of {q.shape[1]} classes cannot be compared"
                )
            same.append((p.argmax(1) == q.argmax(1)).cpu())
            kl = F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True)
            divergence.append(kl.sum(1).cpu())
            change = q - p
            changes.append((change - change.mean(1, keepdim=True)).square().sum(1).cpu() / 2)
    alike = torch.cat(same)
    return Agreement(
        data=opened.name,
        images=len(alike),
        top1=_percent(alike),
        kl=float(torch.cat(divergence).mean()),
        logit_change=float(torch.cat(changes).mean()),
    )


def answers_of(
    network: nn.Module,
    data: Data,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Tensor:
    """The logits of a network for all images of its data: (images, classes), on the CPU.

    Raises:
        UsageError: the network returns something else than logits.
        VqzooError: the data cannot be read, or the network fails on the images.
    """
    network = as_network(network)
    with evaluating(network, device):
        return torch.cat(
            [logits_of(network, x.to(device)).cpu() for x, _ in _counted(data, progress)]
        )


def paired_difference(a: Evaluation, b: Evaluation) -> PairedDifference:
    """Top-1 of `b` minus top-1 of `a` on the same images, in percentage points.

    The interval is Wald's for the paired differences d_i in {-1, 0, 1}: 1.96 s_d / sqrt(n), with
    n - 1 in the denominator of s_d. Its width is 0 if the two agree on every image.

    Raises:
        ValueError: the evaluations are not of the same images, or of fewer than two.
    """
    if a.data != b.data or a.images != b.images:
        raise ValueError(f"{a.images} of {a.data} and {b.images} of {b.data}: not paired")
    return paired_points(a.correct.double(), b.correct.double())


def _opened(
    data: str | Data,
    model: nn.Module,
    images: int | None,
    batch_size: int | None,
    read: ReadOptions,
    classes: int | None,
) -> Data:
    if isinstance(data, str):
        size = BATCH_SIZE if batch_size is None else batch_size
        return open_data(
            data, model, images=images, batch_size=size, num_classes=classes, read=read
        )
    if images is not None or batch_size is not None or read != READ_ALL:
        raise ValueError("the data is open already: give its options to open_data")
    return data


def _count_classes(model: nn.Module, device: torch.device | str) -> int | None:
    """How many logits a network gives; None where it says so itself, as timm's do."""
    if isinstance(getattr(model, "num_classes", None), int):
        return None
    with evaluating(model, device):
        return logits_of(model, torch.zeros(1, *input_size(model), device=device)).shape[1]


def labelled(data: Data, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of `data`, batch by batch; each is reported to `progress` after use.

    Raises:
        VqzooError: the data holds no image.
        ValueError: a batch has no labels, although `data` is labelled.
    """
    for x, y in _counted(data, progress):
        if y is None:
            raise ValueError(f"{data.name} is labelled, but a batch has no labels")
        yield x, y


def _counted(data: Data, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches of `data`, each reported to `progress` after use.

    Raises:
        VqzooError: the data holds no image.
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
    """Eval mode without gradients on `device`; the mode of every module is restored."""
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
