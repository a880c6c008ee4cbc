"""`vqzoo inspect`."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.terminal import command, print_text, printable, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.artifact.reader import Artifact

_UNLIMITED = 10_000


@command
def inspect(
    artifact: Annotated[
        str,
        typer.Argument(
            help="An artifact's folder or repository (ORG/NAME[@REVISION]).", show_default=False
        ),
    ],
) -> None:
    """Show what an artifact contains, from its headers alone: no weights are decoded."""
    from rich.markup import escape

    from vqzoo.report.formatting import megabytes

    opened = _open(artifact)
    dense = opened.dense_tensors()
    console = stdout()
    block = opened.block
    print_text(
        console,
        f"[bold]{escape(printable(_name(opened)))}[/], "
        f"method {escape(printable(block.method))}, weights {escape(printable(block.weights))}, "
        f"format {block.format_version}, layout {opened.layout}",
        markup=True,
    )
    console.print(_table(opened, console.width))
    print_text(
        console,
        f"{len(dense)} tensors are not compressed, "
        f"{megabytes(sum(tensor.nbytes for tensor in dense.values()))}; "
        f"whole file {megabytes(opened.header.file_bytes)}. "
        "Checksums are verified when the artifact is loaded.",
    )
    if norms := opened.metadata.norms:
        print_text(
            console,
            f"{len(norms)} batch norms are folded into the layers before them: "
            "their weights have the scales.",
        )
    print_text(console, _proof_text(opened))


def _proof_text(opened: "Artifact") -> str:
    """How the writer proved the artifact, in a sentence."""
    if opened.weights_only:
        return (
            "No architecture is stored: vqzoo.load_into(model, folder) loads the weights into a "
            "network that you build."
        )
    proof = opened.block.proof
    if proof is None:
        return "An older vqzoo wrote it, without running it beside the network that it came from."
    count, *size = proof.images
    outputs = f"outputs differ by at most {proof.difference:.1g} of the largest"
    if not proof.difference:
        outputs = "their outputs are equal"
    from vqzoo.artifact.schema import IMPORTED

    origin = "imported" if opened.block.weights.startswith(IMPORTED) else "compressed"
    return (
        f"Proven when it was written: it rebuilds the network that was {origin}. Both ran on "
        f"{count} random images of {'×'.join(map(str, size))}; {outputs}."
    )


def _name(opened: "Artifact") -> str:
    """The architecture, or the class of a network that the user builds."""
    if opened.weights_only:
        return f"weights only, of {opened.config.get('network')}"
    return str(opened.config.get("architecture"))


def _open(source: str) -> "Artifact":
    from vqzoo.artifact.reader import open_artifact
    from vqzoo.models.sources import local_path, names_repository

    if not names_repository(source):
        return open_artifact(local_path(source))
    from vqzoo.network.load import verified_artifact  # imports torch, which a folder does not need

    return verified_artifact(source)[0]


def _table(opened: "Artifact", width: int) -> "Table":
    """One row per compressed weight.

    Where the table would be too wide, columns with the same text in every row become its caption.
    """
    from rich.console import Console

    rows = [_row(opened, key) for key in opened.metadata.layers]
    table = _table_of(rows, set())
    if Console(width=_UNLIMITED).measure(table).maximum <= width:
        return table
    same = {title for title in ("method", "packing") if len({row[title] for row in rows}) == 1}
    return _table_of(rows, same)


def _table_of(rows: list[dict[str, str]], same: set[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.caption_justify, table.caption_style = "left", ""
    if same:
        table.caption = "every weight: " + ", ".join(f"{t} {rows[0][t]}" for t in sorted(same))
    titles = [title for title in rows[0] if title not in same] if rows else []
    for title in titles:
        text = title in ("weight", "shape", "method", "packing")
        table.add_column(
            title,
            justify="left" if text else "right",
            no_wrap=title != "weight",
            overflow="fold" if title == "weight" else "ellipsis",
        )
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    return table


def _row(opened: "Artifact", key: str) -> dict[str, str]:
    """Title of a column -> a weight's text in it, escaped."""
    from rich.markup import escape

    entry = opened.metadata.layers[key]
    count, size = math.prod(entry.shape), opened.layer_bytes(key)
    packings, bits_per_code = _packings(opened, key)
    return {
        "weight": escape(printable(key)),
        "shape": "×".join(str(size) for size in entry.shape),
        "method": escape(printable("+".join(entry.methods))),
        "packing": packings,
        "bits/code": bits_per_code,
        "bits/weight": f"{8 * size / count:.2f}" if count else "-",
        "ratio": f"{4 * count / size:.1f}x" if size else "-",
        "bytes": f"{size:,}",
    }


def _packings(opened: "Artifact", key: str) -> tuple[str, str]:
    """The packings of a weight's codes, escaped, and the bits per code."""
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
