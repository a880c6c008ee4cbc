"""`vqzoo eval`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.terminal import command, stderr, stdout


@command
def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|MODEL",
            help="An artifact's folder or repository (ORG/NAME), or a timm model.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="fmnist (embedded), imagefolder:PATH, or a data set of timm's. "
            "[dim]default: the model's own, where vqzoo ships it[/]"
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Measure on this many images, evenly spaced.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights for MODEL: .safetensors or a torch state dict.")
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.py", help="A plugin file that the artifact was made with."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")
    ] = False,
) -> None:
    """Measure the top-1 and top-5 accuracy of an artifact or of a dense model."""
    import json

    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.threads import limit_threads
    from vqzoo.plugin.files import plugin_files
    from vqzoo.zoo.measure import measure

    with plugin_files(plugin or []), limit_threads(threads), TerminalWatcher(stderr()) as watcher:
        result = measure(
            subject, watcher, data=data, images=images, checkpoint=checkpoint, device=device
        )
    if json_:
        print(json.dumps(result, indent=2))
        return
    top5 = f", top-5 {result['top5']:.2f}%" if result["top5"] is not None else ""
    stdout().print(
        f"{result['model']}: top-1 {result['top1']:.2f}%{top5} "
        f"on {result['images']:,} images of {result['data']}",
        markup=False,
    )
