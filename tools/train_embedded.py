"""Train an embedded network: `python -m tools.train_embedded MODEL --data DIR --out FILE`.

MODEL is alexnet_mini, mobilenet_mini or vit_mini. DIR holds the training split of Fashion-MNIST
(train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz). 5,000 of its images, those that ship in
the package (see `vqzoo.data.fmnist`), are held out to report the accuracy; the network is trained
on the other 55,000. The held-out images do not influence the result: the averaged weights after the
last epoch are saved. The test split is never read.

The recipes: AdamW, linear warm-up and cosine decay, label smoothing, random crops, flips and
erasing, and an exponential moving average of the weights. The result is float16 safetensors with
the recipe and its outcome as metadata. After each epoch the state goes to FILE.checkpoint; the same
command goes on from there, to the same bytes, and deletes it at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import timm
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from tools.fmnist_training import Recipe, Step, accuracy, train
from vqzoo.artifact.writer import write_tensors
from vqzoo.data.fmnist import LabelledImages, held_out_indices, train_split
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.models.registration import register_models

RECIPES = {
    recipe.model: recipe
    for recipe in (
        Recipe(),
        Recipe(
            model="mobilenet_mini",
            epochs=30,
            batch_size=128,
            learning_rate=3e-3,
            warmup_epochs=1.0,
            drop_rate=0.0,
            erase_side=8,
            erase_probability=0.25,
            ema_decay=0.999,
            bfloat16=False,
        ),
        Recipe(
            model="vit_mini",
            epochs=40,
            batch_size=128,
            learning_rate=2e-3,
            warmup_epochs=2.0,
            drop_rate=0.0,
            erase_side=8,
            erase_probability=0.25,
            ema_decay=0.999,
            largest_gradient=1.0,
            bfloat16=False,
        ),
    )
}


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
        prog="python -m tools.train_embedded",
        description="Train an embedded network on the training split of Fashion-MNIST.",
    )
    parser.add_argument("model", choices=list(RECIPES), help="the network")
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX .gz files")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Train and save as the command line says.

    Raises:
        UsageError: an argument is invalid.
        VqzooError: the data is missing or damaged.
    """
    if args.epochs is not None and args.epochs < 1:
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

    recipe = RECIPES[args.model]
    recipe = replace(recipe, seed=args.seed, epochs=args.epochs or recipe.epochs)
    checkpoint = args.out.with_name(args.out.name + ".checkpoint")
    register_models()
    with _progress(recipe, len(data) // recipe.batch_size) as on_step:
        model = train(data, held_out, recipe, device, on_step, checkpoint)
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
    checkpoint.unlink(missing_ok=True)
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
