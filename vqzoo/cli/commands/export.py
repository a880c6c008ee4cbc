"""`vqzoo export`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.terminal import command


@command
def export(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="A folder, or ORG/NAME on the Hub.", show_default=False
        ),
    ],
    to: Annotated[str, typer.Option(help="dense or onnx.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write. [dim]default: <artifact>-<to>[/]")
    ] = None,
) -> None:
    """Write an artifact's network with decoded weights, for tools that do not know vqzoo.

    dense: a folder for [bold]timm.create_model('local-dir:DIR', pretrained=True)[/]; AlexNet's
    model.safetensors is also a state dict for torchvision. onnx: one file, whose outputs in
    onnxruntime are compared with torch's.
    """
    from vqzoo.network.export import export as export_artifact

    folder = out or Path(f"{Path(artifact).name.replace('@', '-')}-{to}")
    for path in export_artifact(artifact, to, folder):  # type: ignore[arg-type]  # `export` checks it
        print(path)
