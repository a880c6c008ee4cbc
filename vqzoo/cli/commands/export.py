"""`vqzoo export`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqzoo.cli.options import ArtifactPlugins
from vqzoo.cli.terminal import command, stderr

if TYPE_CHECKING:
    from vqzoo.network.export.record import Exported


@command
def export(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="A folder, or ORG/NAME on the Hub.", show_default=False
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="onnx, web, pt2, pte, openvino, coreml, coreai or dense.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write. [dim]default: <artifact>-<to>[/]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="codes: stay as small as the artifact; the network decodes them itself. dense: "
            "decoded. packed: for onnx, integers that onnxruntime multiplies by as they are. "
            "[dim]default: codes, where the format has them[/]"
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            help="float16 or int8: the tables of Core ML's and Core AI's palettes. "
            "[dim]default: float16[/]"
        ),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            help="float32 or int8: what layers with packed weights multiply by; int8 is faster, "
            "and rounds. [dim]default: float32[/]"
        ),
    ] = None,
    plugin: ArtifactPlugins = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a record of what was written as JSON.")
    ] = False,
) -> None:
    """Write an artifact's network for other tools, and check that it computes the same.

    onnx: one file for any batch size, in standard operators, checked in onnxruntime. web: a
    static folder with a page that classifies pictures in the browser, onnxruntime-web beside it.
    pt2: a program of torch.export, which torch runs without vqzoo and timm. pte: a program of
    ExecuTorch for one image, with XNNPACK for what it takes. openvino: model.xml and model.bin,
    OpenVINO's IR, for any batch size. coreml: an .mlpackage for one image, for iOS 18 and
    macOS 15, whose weights are checked, as nothing here runs it. coreai: an .aimodel for
    one image, for Apple's Core AI.
    dense: a folder for [bold]timm.create_model('local-dir:DIR', pretrained=True)[/]; AlexNet's
    model.safetensors is also a state dict for torchvision.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.network.export import export as export_artifact
    from vqzoo.report.formatting import megabytes

    folder = out or Path(f"{Path(artifact).name.replace('@', '-')}-{to}")
    with TerminalWatcher(stderr()) as watcher:
        exported = export_artifact(
            artifact,
            to,
            folder,
            weights=weights,  # type: ignore[arg-type]  # `export` checks it
            tables=tables,  # type: ignore[arg-type]  # it checks this, too
            inputs=inputs,  # type: ignore[arg-type]  # and this
            plugins=plugin or (),
            watcher=watcher,
        )
    if as_json:
        print(json.dumps(_record(exported), indent=2))
        return
    for path in exported.files:
        print(path)
    check = exported.written.check
    share = exported.bytes / exported.artifact_bytes
    print(f"{megabytes(exported.bytes)}, {share:.2f} times the artifact")
    for weight in exported.written.dense:
        print(f"{weight.key} is dense, {megabytes(weight.bytes)}: {weight.reason}")
    for note in exported.written.notes:
        print(note)
    if check is not None:
        print(
            f"In {check.runtime}, {check.compared} differ from the artifact's by at most "
            f"{check.error:.1e} of the largest (accepted: {check.tolerance:.0e})."
        )


def _record(exported: "Exported") -> dict[str, Any]:
    check = exported.written.check
    record: dict[str, Any] = {
        "format": exported.format,
        "weights": exported.weights,
        "files": [str(path) for path in exported.files],
        "bytes": exported.bytes,
        "artifact_bytes": exported.artifact_bytes,
        **dict(exported.written.facts),
    }
    if check is not None:
        record |= {
            "runtime": check.runtime,
            "error": check.error,
            "tolerance": check.tolerance,
            "compared": check.compared,
        }
    if exported.written.dense:
        record["dense"] = [asdict(weight) for weight in exported.written.dense]
    return record
