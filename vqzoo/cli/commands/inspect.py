"""`vqzoo inspect`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.terminal import command, print_text, printable, stdout

if TYPE_CHECKING:
    from vqzoo.artifact.reader import Artifact


@command
def inspect(
    artifact: Annotated[Path, typer.Argument(help="An artifact's folder.", show_default=False)],
) -> None:
    """Show what an artifact contains, from its headers alone: no weights are read."""
    from rich.markup import escape
    from rich.table import Table

    from vqzoo.artifact.reader import open_artifact
    from vqzoo.report.formatting import megabytes

    opened = open_artifact(artifact)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("weight", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("packing", no_wrap=True)
    for title in ("bits/code", "bits/weight", "ratio", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for key, entry in opened.metadata.layers.items():
        count, size = math.prod(entry.shape), opened.layer_bytes(key)
        table.add_row(
            escape(printable(key)),
            "×".join(str(size) for size in entry.shape),
            escape(printable("+".join(entry.methods))),
            *_packings(opened, key),
            f"{8 * size / count:.2f}" if count else "-",
            f"{4 * count / size:.1f}x" if size else "-",
            f"{size:,}",
        )
    dense = opened.dense_tensors()
    console = stdout()
    block, cfg = opened.block, opened.config
    print_text(
        console,
        f"[bold]{escape(printable(str(cfg.get('architecture'))))}[/], "
        f"method {escape(printable(block.method))}, weights {escape(printable(block.weights))}, "
        f"format {block.format_version}",
        markup=True,
    )
    console.print(table)
    print_text(
        console,
        f"{len(dense)} tensors are not compressed, "
        f"{megabytes(sum(tensor.nbytes for tensor in dense.values()))}; "
        f"whole file {megabytes(opened.header.file_bytes)}. "
        "Checksums are verified when the artifact is loaded.",
    )


def _packings(opened: "Artifact", key: str) -> tuple[str, str]:
    """The packings of a weight's codes, and the bits per code."""
    from rich.markup import escape

    from vqzoo.artifact.parts import layer_parts
    from vqzoo.artifact.schema import IndicesEntry

    names, count, size = [], 0, 0
    for name, part in layer_parts(key, opened.metadata.layers[key].code):
        if isinstance(part, IndicesEntry):
            names.append(escape(printable(part.packing)))
            count += math.prod(part.shape)
            size += opened.header.tensors[name].nbytes
    return ", ".join(dict.fromkeys(names)), f"{8 * size / count:.2f}" if count else "-"
