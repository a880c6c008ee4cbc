"""Train the embedded network: `python -m tools.train_alexnet_mini --data DIR --out FILE`.

DIR holds the training split of Fashion-MNIST (train-images-idx3-ubyte.gz and
train-labels-idx1-ubyte.gz). 5,000 of its images, those that ship in the package (see
`vqzoo.data.fmnist`), are held out to report the accuracy; the network is trained on the other
55,000. The held-out images do not influence the result: the averaged weights after the last epoch
are saved. The test split is never read.

The recipe: AdamW, linear warm-up and cosine decay, label smoothing, random crops, flips and
erasing, dropout, and an exponential moving average of the weights. The result is float16
safetensors with the recipe and its outcome as metadata.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from vqzoo.artifact.writer import write_tensors
from vqzoo.data.augment import augment
from vqzoo.data.fmnist import LabelledImages, held_out_indices, train_split
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.models.alexnet_mini import FMNIST_MEAN, FMNIST_STD, alexnet_mini


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training, recorded in the saved file."""

    seed: int = 0
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    drop_rate: float = 0.5
    crop_padding: int = 2
    erase_side: int = 10
    erase_probability: float = 0.5
    ema_decay: float = 0.998


@dataclass(frozen=True)
class Step:
    """The outcome of a training step.

    Attributes:
        epoch: from 0.
        step: within the epoch, from 0.
        loss: of the batch.
        accuracy: top-1 on the held-out images in percent; None except at the end of an epoch.
    """

    epoch: int
    step: int
    loss: Tensor
    accuracy: float | None


def train(
    data: LabelledImages,
    held_out: LabelledImages,
    recipe: Recipe,
    device: torch.device,
    on_step: Callable[[Step], None],
) -> nn.Module:
    """Train `alexnet_mini`.

    Matrix products run in bfloat16 (autocast), weights and optimizer state stay float32. The same
    `recipe.seed` gives the same weights on the same machine with the same number of threads. The
    caller's random state is not changed.

    Args:
        data: the images to train on.
        held_out: the images to measure the accuracy on after each epoch.
        recipe: the hyperparameters.
        device: the device to train on.
        on_step: called after each step.

    Returns:
        The averaged network, float32, in eval mode.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        model = alexnet_mini(drop_rate=recipe.drop_rate)
        model = model.to(device, memory_format=torch.channels_last)
        average = copy.deepcopy(model).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True
        )
        images, labels = data.images.to(device), data.labels.to(device)
        steps_per_epoch = len(data) // recipe.batch_size
        for epoch in range(recipe.epochs):
            for step, (x, y) in enumerate(_shuffled_batches(images, labels, recipe)):
                done = epoch * steps_per_epoch + step
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * schedule(done, steps_per_epoch, recipe)
                with torch.autocast(device.type, torch.bfloat16):
                    logits = model(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                _update_average(average, model, done, recipe.ema_decay)
                last = step == steps_per_epoch - 1
                top1 = accuracy(average, held_out, device) if last else None
                on_step(Step(epoch, step, loss.detach(), top1))
    return average


def schedule(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    total = recipe.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def erase(images: Tensor, side: int, probability: float) -> Tensor:
    """Set a square of each image to the mean (0) with the given probability.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896) with squares of one size, as in Cutout
    (DeVries, Taylor 2017). Draws from torch's global generator of the images' device.

    Args:
        images: (N, C, H, W), normalized.
        side: of the square in pixels; a square may extend past the border.
        probability: with which an image gets a square.

    Returns:
        (N, C, H, W).
    """
    n, _, height, width = images.shape
    top = torch.randint(1 - side, height, (n, 1), device=images.device)
    left = torch.randint(1 - side, width, (n, 1), device=images.device)
    chosen = torch.rand(n, 1, 1, device=images.device) < probability
    rows = torch.arange(height, device=images.device) - top
    columns = torch.arange(width, device=images.device) - left
    inside_rows, inside_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    square = inside_rows[:, :, None] & inside_columns[:, None, :] & chosen
    return images.masked_fill(square[:, None], 0.0)


def normalize(images: Tensor) -> Tensor:
    """Convert uint8 images to float32, normalized by the mean and standard deviation of
    Fashion-MNIST."""
    mean = 255 * torch.tensor(FMNIST_MEAN, device=images.device).view(1, -1, 1, 1)
    std = 255 * torch.tensor(FMNIST_STD, device=images.device).view(1, -1, 1, 1)
    return (images.float() - mean) / std


@torch.inference_mode()
def accuracy(model: nn.Module, data: LabelledImages, device: torch.device) -> float:
    """Top-1 accuracy in percent, computed in float32; `model` must be in eval mode."""
    correct = 0
    for start in range(0, len(data), 500):
        images, labels = data[start : start + 500]
        logits = model(normalize(images.to(device)))
        correct += int((logits.argmax(1) == labels.to(device)).sum())
    return 100 * correct / len(data)


def _shuffled_batches(
    images: Tensor, labels: Tensor, recipe: Recipe
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(labels), device=labels.device)
    for batch in order.split(recipe.batch_size):
        if len(batch) == recipe.batch_size:
            x = normalize(augment(images[batch], recipe.crop_padding))
            x = erase(x, recipe.erase_side, recipe.erase_probability)
            yield x.contiguous(memory_format=torch.channels_last), labels[batch]


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    # The decay grows from 0.1, so that the average forgets the random initial weights.
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean.lerp_(buffer, weight) if mean.is_floating_point() else mean.copy_(buffer)


def save(model: nn.Module, record: dict[str, object], path: Path) -> None:
    """Write the weights as float16 safetensors, with `record` as the only metadata entry."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_tensors(path, tensors, {"vqzoo": json.dumps(record, sort_keys=True)})


@contextlib.contextmanager
def _progress(recipe: Recipe, steps_per_epoch: int) -> Iterator[Callable[[Step], None]]:
    """Show a progress bar, and print one line with loss and accuracy per epoch."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task("training", total=recipe.epochs * steps_per_epoch)
    losses: list[Tensor] = []

    def on_step(step: Step) -> None:
        losses.append(step.loss)
        bar.advance(task)
        if step.accuracy is None:
            return
        loss = torch.stack(losses).mean().item()
        losses.clear()
        line = f"epoch {step.epoch + 1:3d}  loss {loss:.4f}  held-out {step.accuracy:.2f}%"
        bar.update(task, description=line)
        console.print(line, highlight=False)

    with bar:
        yield on_step


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_alexnet_mini",
        description="Train alexnet_mini on the training split of Fashion-MNIST.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX .gz files")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Train and save as the command line says.

    Raises:
        UsageError: an argument is invalid.
        VqzooError: the data is missing or damaged.
    """
    if args.epochs < 1:
        raise UsageError(f"--epochs {args.epochs}: it must be at least 1")
    if not args.out.parent.is_dir():
        raise UsageError(f"{args.out.parent} is not a folder: create it first")
    try:
        device = torch.device(args.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {args.device}: {one_line(error)}") from error
    split = train_split(args.data)
    held_out_images = held_out_indices(split.labels)
    training_images = torch.ones(len(split), dtype=torch.bool)
    training_images[held_out_images] = False
    data = LabelledImages(*split[training_images])
    held_out = LabelledImages(*split[held_out_images])

    recipe = Recipe(seed=args.seed, epochs=args.epochs)
    with _progress(recipe, len(data) // recipe.batch_size) as on_step:
        model = train(data, held_out, recipe, device, on_step)
    rounded = model.to(torch.float16).to(torch.float32)
    record: dict[str, object] = {
        "recipe": asdict(recipe),
        "data": "Fashion-MNIST, training split without the 5,000 held-out images",
        "held_out_top1": accuracy(rounded, held_out, device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "device": device.type,
    }
    save(rounded, record, args.out)
    print(f"{args.out}: {record['held_out_top1']:.2f}% of the held-out images")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        run(_parse(argv))
    except VqzooError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
