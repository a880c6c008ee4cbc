"""`vqzoo finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.options import (
    DEVICE,
    Alpha,
    ArtifactPlugins,
    BatchSize,
    Force,
    Images,
    LearningRate,
    NoAugment,
    OnlyRecord,
    Optimizer,
    Patience,
    Temperature,
    Threads,
    Train,
    TrainData,
    TrainImages,
    finetuning_fields,
)
from vqzoo.cli.terminal import command, stderr, stdout


@command
def finetune(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An artifact's folder, or its repository on the Hub (ORG/NAME).",
            show_default=False,
        ),
    ],
    data: TrainData = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training images, at most.")
    ] = 10,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A timm model of the same classes to learn from. [dim]default: the dense model "
            "that was compressed[/]",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights of the dense model, where they came from a file."),
    ] = None,
    train_images: TrainImages = None,
    train: Train = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    temperature: Temperature = None,
    alpha: Alpha = None,
    batch_size: BatchSize = None,
    patience: Patience = None,
    no_augment: NoAugment = False,
    eval_data: Annotated[
        str | None, typer.Option(help="What to measure on, as `vqzoo run --data` takes it.")
    ] = None,
    images: Images = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The new artifact's folder. [dim]default: ARTIFACT-finetuned[/]"),
    ] = None,
    force: Force = False,
    plugin: ArtifactPlugins = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    device: Annotated[str, DEVICE] = "cpu",
    threads: Threads = None,
    json_: OnlyRecord = False,
) -> None:
    """Fine-tune an artifact by distillation: the dense model teaches the compressed one.

    What the methods store as floats learns (codebooks, scales, factors), with norm layers and
    biases unless --train says otherwise; codes and masks stay, and with them the size. Some of the
    images are held out, and the epoch that does best on them is kept. Test images are never
    learned from.

    [bold]Examples[/]

    vqzoo finetune my-artifact --epochs 10

    vqzoo finetune my-artifact --data imagefolder:train --epochs 5 --train codebooks --lr 0.001

    Images without labels will do: the teacher's answers take their place. A call that breaks off
    is taken up by the same command.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.tables import print_record
    from vqzoo.cli.threads import limit_threads
    from vqzoo.finetuning.finetune import parse_settings
    from vqzoo.runs.finetune_artifact import finetune_artifact
    from vqzoo.runs.finetune_request import FinetuneRequest

    fields = finetuning_fields(
        epochs,
        no_augment,
        data=data,
        images=train_images,
        train=train,
        lr=lr,
        optimizer=optimizer,
        temperature=temperature,
        alpha=alpha,
        batch_size=batch_size,
        patience=patience,
    )
    request = FinetuneRequest(
        source=artifact,
        settings=parse_settings(fields or {}),
        teacher=teacher,
        checkpoint=checkpoint,
        data=eval_data,
        images=images,
        seed=seed,
        device=device,
        plugins=tuple(plugin or []),
    )
    with limit_threads(threads), TerminalWatcher(stderr()) as watcher:
        finished = finetune_artifact(request, watcher, out=out, force=force)
    if json_:
        print(finished.record.to_json())
    else:
        print_record(stdout(), finished.record, finished.folder)
