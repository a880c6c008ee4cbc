"""The options that several commands share, those of fine-tuning above all."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.errors import UsageError

DEVICE = typer.Option(help="cpu, cuda, cuda:1, mps.")
SEED = typer.Option(help="The same seed gives the same bytes.")

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
Images = Annotated[
    int | None, typer.Option(min=1, help="Measure on this many images, evenly spaced.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a finished folder.")]
ArtifactPlugins = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE.py", help="A plugin file that the artifact was made with."),
]
OnlyRecord = Annotated[
    bool, typer.Option("--json", help="Print the record, and nothing else, on stdout.")
]
OnlyJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

_PANEL = "Fine-tuning"

TrainData = Annotated[
    str | None,
    typer.Option(
        help="Images to fine-tune with, some held out to validate on: fmnist (embedded training "
        "images), fmnist:FOLDER (all of them, from the IDX files), imagefolder:PATH, or a data "
        "set of timm's, split train. [dim]default: the model's own, where vqzoo ships them[/]",
        rich_help_panel=_PANEL,
    ),
]
TrainImages = Annotated[
    int | None,
    typer.Option(min=1, help="Learn from at most this many images.", rich_help_panel=_PANEL),
]
Train = Annotated[
    str | None,
    typer.Option(
        help="What learns: codebooks (what the methods store as floats: codebooks, scales, "
        "factors), norms (norm layers, too), all (every bias, too). Codes never change. "
        "[dim]default: all[/]",
        rich_help_panel=_PANEL,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate at the start, relative to each tensor's size; it falls to 0 in half a "
        "cosine. [dim]default: 0.002[/]",
        rich_help_panel=_PANEL,
    ),
]
Optimizer = Annotated[
    str | None, typer.Option(help="adam or sgd. [dim]default: adam[/]", rich_help_panel=_PANEL)
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="T: teacher's and student's logits are divided by it. [dim]default: 2[/]",
        rich_help_panel=_PANEL,
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="Weight of the teacher against that of the labels; 1 where there are no labels. "
        "[dim]default: 0.9[/]",
        rich_help_panel=_PANEL,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Images a step. [dim]default: 64[/]", rich_help_panel=_PANEL),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Stop after this many epochs without a better validation loss; the best epoch is "
        "kept anyway. [dim]default: never[/]",
        rich_help_panel=_PANEL,
    ),
]
NoAugment = Annotated[
    bool,
    typer.Option("--no-augment", help="Take training images as they are.", rich_help_panel=_PANEL),
]
FinetuneEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="EPOCHS",
        min=1,
        help="Fine-tune for so many epochs: the dense model teaches the compressed one. See "
        "`vqzoo finetune`.",
        rich_help_panel=_PANEL,
    ),
]


def finetuning_fields(epochs: int | None, no_augment: bool, **given: Any) -> dict[str, Any] | None:
    """Fields of a `Finetuning` that were given; None where none was."""
    fields = {"epochs": epochs, "augment": False if no_augment else None, **given}
    return {name: value for name, value in fields.items() if value is not None} or None


def need_epochs(fields: dict[str, Any] | None) -> None:
    """Raises UsageError where fine-tuning is described but not asked for."""
    if fields is not None and "epochs" not in fields:
        names = ", ".join(fields)
        raise UsageError(f"{names}: only fine-tuning takes these; give --finetune EPOCHS")


def split_selectors(texts: list[str]) -> tuple[str, ...]:
    """Selector texts, joined by commas or given one by one."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def parse_scalars(pairs: list[str]) -> dict[str, int | str]:
    """`name=value` pairs whose values are integers where they look like it."""
    from vqzoo.plugin.text import parse_options

    return {
        name: int(value) if value.isdecimal() else value
        for name, value in parse_options(pairs).items()
    }
