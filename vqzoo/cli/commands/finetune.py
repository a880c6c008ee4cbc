"""`vqzoo finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.cli.declared import takes
from vqzoo.cli.options import Force, OnlyRecord, Threads
from vqzoo.cli.terminal import resumable_command, stderr, stdout
from vqzoo.runs.finetune_request import FinetuneRequest, make_finetune_request


@resumable_command
@takes(FinetuneRequest)
def finetune(
    fields: dict[str, Any],
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An artifact's folder, or its repository on the Hub (ORG/NAME).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The new artifact's folder. [dim]default: ARTIFACT-finetuned[/]"),
    ] = None,
    force: Force = False,
    threads: Threads = None,
    json_: OnlyRecord = False,
) -> None:
    """Fine-tune an artifact by distillation: the dense model teaches the compressed one.

    Training changes what the methods store as floats (codebooks, scales, factors), and the norm
    layers and biases unless --train says otherwise; codes and masks stay, and with them the size.
    Some of the images are held out, and the epoch with the lowest loss on them is kept. Test images
    are never trained on.

    [bold]Examples[/]

    vqzoo finetune my-artifact --epochs 10

    vqzoo finetune my-artifact --data imagefolder:train --epochs 5 --train codebooks --lr 0.001

    The images need no labels: the teacher's answers replace them. If fine-tuning is interrupted,
    run the same command again to resume.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.tables import print_record, warn_of_low_coverage
    from vqzoo.finetuning.finetune import parse_settings
    from vqzoo.numerics.threads import use_threads
    from vqzoo.runs.finetune_artifact import finetune_artifact

    settings = parse_settings(fields.pop("settings", {}))
    request = make_finetune_request({"source": artifact, "settings": settings, **fields})
    with use_threads(threads), TerminalWatcher(stderr()) as watcher:
        finished = finetune_artifact(request, watcher, out=out, force=force)
    warn_of_low_coverage(finished.record)
    if json_:
        print(finished.record.to_json())
    else:
        print_record(stdout(), finished.record, finished.folder)
