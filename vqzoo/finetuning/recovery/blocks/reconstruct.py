"""Block after block learns to return what the dense network's block returns.

Li et al. 2021 (BRECQ), arXiv 2102.05426: a block's inputs are those of the compressed network,
its targets the outputs of the dense one, and errors of the outputs count by what they do to the
answers. Here all floats of the block are trained, and codes stay.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.calibration.repair import Judge
from vqzoo.data.batches import Data
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.views import random_views
from vqzoo.finetuning.recovery.blocks.activations import Pairs, collect_pairs, output_weights
from vqzoo.finetuning.recovery.blocks.units import find_units, tensors_of
from vqzoo.finetuning.recovery.state import RecoveryState
from vqzoo.finetuning.recovery.step_sizes import step_sizes
from vqzoo.finetuning.recovery.trainee import make_trainee
from vqzoo.finetuning.student import Student
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import TrainingSteps, Watcher

MEMORY = 1 << 30  # bytes of cached inputs and outputs of a block
PATIENCE = 4  # blocks in a row that do not help
_STEPS = 200  # a block
_BATCH = 16
_AT_ONCE = 64  # images in a forward pass that fills the cache
_BETAS = (0.9, 0.99)
_WEIGHT_VIEWS = 64  # images that weights of outputs are measured on
_SHARES = (1.0, 0.5)  # of what a block has learned, tried in turn


@dataclass(frozen=True)
class Reconstructed:
    """A network after reconstruction.

    Attributes:
        module: the decoded network, in eval mode, on the CPU.
        codes: layer -> code, its floats rounded to their storage dtypes.
        tried: paths of the blocks that were trained, in order.
        kept: those of them whose new values were kept.
        divergence: as judged at the end.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    tried: list[str]
    kept: list[str]
    divergence: float


def reconstruct_blocks(
    model: nn.Module,
    codes: Mapping[str, MethodCode],
    dense: nn.Module,
    images: Data,
    judge: Judge,
    plugins: Plugins,
    watcher: Watcher,
    *,
    seed: int,
    device: torch.device,
    state: RecoveryState,
    memory: int = MEMORY,
) -> Reconstructed:
    """Train the floats of one block after the other on cached inputs of the block.

    Each block learns from the images and as many random views of them. What it has learned, or half
    of the way there, is kept if the whole network then diverges less on other images. After some
    blocks in a row that do not help, only the last one is still trained.

    Args:
        model: the decoded network; it is not changed.
        codes: layer -> code of its weight.
        dense: the network before compression; it is moved to the device.
        images: what is learned from, without labels.
        judge: how far a decoded network is from the dense one, on images held out.
        plugins: the loaded plugins.
        watcher: receives progress.
        seed: of the views. The same seed gives the same values on one machine with one number of
            threads.
        device: where to train.
        state: where reconstruction goes on after an interruption.
        memory: bytes of cached inputs and outputs, as float16. What takes more is learned in parts.

    Raises:
        VqzooError: there is nothing to train, or the networks fail on the images.
    """
    trainee = make_trainee(model, codes, plugins, judge, device)
    student = trainee.student
    teacher = dense.to(device).eval()
    probe = next(iter(images)).images[:2].to(device)
    units = find_units(student.network, list(student.layers), probe)
    saved = state.load("blocks")
    if saved is None:
        tried: list[str] = []
        kept: list[str] = []
        least = trainee.divergence()
    else:
        student.restore(saved["tensors"])
        tried, kept, least = saved["tried"], saved["kept"], saved["divergence"]
    generator = epoch_generator(seed, 0)
    views = list(_views(images, generator, device, _WEIGHT_VIEWS, _BATCH))
    weights = output_weights(teacher, units, views, generator)
    for index, unit in enumerate(units):
        hopeless = len(tried) >= PATIENCE and not set(kept) & set(tried[-PATIENCE:])
        # The last block, mostly the classifier, makes up for what all others have left.
        if unit in tried or (hopeless and unit != units[-1]):
            continue
        before = student.snapshot()
        title = f"reconstructing block {index + 1} of {len(units)}: {unit}"
        generator = epoch_generator(seed, index + 1)
        chunks = collect_pairs(
            student.network, teacher, unit, _views(images, generator, device), memory
        )
        lesson = _Lesson(unit, chunks, weights[unit].sqrt(), 2 * (images.images or 0), generator)
        with watcher.training(title) as show:
            _learn(student, lesson, show)
        learned, best = student.snapshot(), before
        for share in _SHARES:
            student.restore(
                {name: torch.lerp(before[name], learned[name], share) for name in learned}
            )
            if (now := trainee.divergence()) < least:
                least, best = now, student.snapshot()
                kept.append(unit)
                break
        student.restore(best)
        tried.append(unit)
        watcher.say(
            f"{title}: KL {least:.4f} on held-out images" + ("" if unit in kept else ", not kept")
        )
        state.save("blocks", {"tensors": best, "tried": tried, "kept": kept, "divergence": least})
    final = trainee.write()
    return Reconstructed(trainee.decoded, final, tried, kept, least)


@dataclass(frozen=True)
class _Lesson:
    """What a block learns from.

    Attributes:
        unit: path of the block.
        chunks: inputs and targets, as many images at a time as memory may hold.
        scales: factors of errors of its outputs, of the shape of one image's.
        images: in all chunks.
        generator: of the order of the images.
    """

    unit: str
    chunks: Iterator[Pairs]
    scales: Tensor
    images: int
    generator: torch.Generator


def _learn(student: Student, lesson: _Lesson, show: TrainingSteps) -> None:
    """Train the floats of a block, by Adam, with rates that fall along half a cosine."""
    block = student.network.get_submodule(lesson.unit)
    tensors = tensors_of(lesson.unit, student.tensors)

    def answers(inputs: Tensor) -> Tensor:
        output: Tensor = block(inputs.to(lesson.scales.dtype))
        return (output * lesson.scales).flatten(1)

    def loss_of(pairs: Pairs) -> Tensor:
        targets = (pairs.outputs.to(lesson.scales.dtype) * lesson.scales).flatten(1)
        return (answers(pairs.inputs) - targets).square().sum(1).mean() / 2

    optimizer: torch.optim.Adam | None = None
    done, seen = 0, 0
    for pairs in lesson.chunks:
        if not all(bool(tensor.isfinite().all()) for tensor in pairs):
            return  # beyond float16: what was learned from earlier images is judged
        order = torch.randperm(len(pairs.inputs), generator=lesson.generator)
        if optimizer is None:
            first = [_chosen(pairs, part) for part in order[:_WEIGHT_VIEWS].split(_BATCH)]
            with torch.no_grad():
                loss = float(torch.stack([loss_of(part) for part in first]).mean())
            if not 0 < loss < math.inf:
                return
            sizes = step_sizes(
                answers, tensors, [part.inputs for part in first], loss, lesson.generator
            )
            groups = [{"params": [tensors[name]], "lr": size} for name, size in sizes.items()]
            optimizer = torch.optim.Adam(groups, betas=_BETAS)
        seen += len(pairs.inputs)
        while done < _STEPS * seen // lesson.images:
            if len(order) < _BATCH:
                again = torch.randperm(len(pairs.inputs), generator=lesson.generator)
                order = torch.cat([order, again])
            part, order = _chosen(pairs, order[:_BATCH]), order[_BATCH:]
            factor = 0.5 * (1 + math.cos(math.pi * done / _STEPS))
            for group, size in zip(optimizer.param_groups, sizes.values(), strict=True):
                group["lr"] = factor * size
            value = loss_of(part)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            done += 1
            show(done, _STEPS, f"loss {float(value.detach()):.4g}")


def _chosen(pairs: Pairs, order: Tensor) -> Pairs:
    chosen = order.to(pairs.inputs.device)
    return Pairs(pairs.inputs[chosen], pairs.outputs[chosen])


def _views(
    images: Data,
    generator: torch.Generator,
    device: torch.device,
    most: int | None = None,
    size: int = _AT_ONCE,
) -> Iterator[Tensor]:
    """The images, each batch of them followed by a random view of it; at most `most` of them."""
    left = math.inf if most is None else most
    for batch in images:
        for some in (batch.images, random_views(batch.images, generator)):
            some = some[: int(min(left, len(some)))]
            left -= len(some)
            for part in some.split(size):
                if len(part):
                    yield part.to(device)
        if left <= 0:
            return
