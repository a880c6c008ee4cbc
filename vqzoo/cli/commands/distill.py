"""`vqzoo distill`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.cli.declared import takes
from vqzoo.cli.options import Force, OnlyRecord, Threads
from vqzoo.cli.terminal import resumable_command, stderr, stdout
from vqzoo.runs.distill.request import DistillRequest, make_distill_request


@resumable_command
@takes(DistillRequest, last=True)
def distill(
    fields: dict[str, Any],
    student: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT",
            help="The small network: a timm model, local-dir:PATH, hf-hub:ORG/NAME, or an "
            "artifact.",
            show_default=False,
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="TEACHER", help="The large network, named in the same way.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The student's folder. [dim]default: <student>-distilled-<hash>[/]"),
    ] = None,
    force: Force = False,
    threads: Threads = None,
    json_: OnlyRecord = False,
) -> None:
    """Train a small dense network by the answers of a large one.

    The student sees crops of the training images, and learns to answer each as the teacher answers
    the same crop, softened by a temperature; labels, where there are any, have a small weight
    (--label-weight). It takes the teacher's classes and channels, and with random weights the
    teacher's preprocessing, too; otherwise each network gets the images in its own size. Some of
    the images are held out, and the epoch with the lowest loss on them is kept. Test images are
    never trained on.

    [bold]Examples[/]

    vqzoo distill resnet10t --teacher resnet50 --train-data imagefolder:train --epochs 50

    vqzoo distill resnet18 --weights random --model-arg channels=[12,24,48,48] --teacher
    alexnet_mini.fmnist --out student

    vqzoo distill test_vit --weights random --model-arg img_size=28 --model-arg patch_size=4
    --teacher my-artifact --train-data imagefolder:unlabelled

    timm opens the folder as local-dir:FOLDER, and [bold]vqzoo run local-dir:FOLDER --size 50kB[/]
    compresses the student. If distillation is interrupted, run the same command again to resume.
    """
    from vqzoo.cli.distillation import print_distillation
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.distillation.settings import Distillation
    from vqzoo.finetuning.finetune import validated_settings
    from vqzoo.numerics.threads import use_threads
    from vqzoo.runs.distill.distill_network import distill_network

    settings = validated_settings(Distillation, fields.pop("settings", {}), "distillation")
    request = make_distill_request(
        {"student": student, "teacher": teacher, "settings": settings, **fields}
    )
    with use_threads(threads), TerminalWatcher(stderr()) as watcher:
        finished = distill_network(request, watcher, out=out, force=force)
    if json_:
        print(finished.record.to_json())
    else:
        print_distillation(stdout(), finished.record, finished.folder)
