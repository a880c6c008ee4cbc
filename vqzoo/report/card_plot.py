"""The plot of a model card: where an artifact's bytes are."""

from pathlib import Path
from typing import IO

from vqzoo.artifact.parts import layer_parts
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import IndicesEntry
from vqzoo.compression.view import layer_name
from vqzoo.report.formatting import printable_label

_BARS = 24
_COLORS = {"codes": "#4477aa", "floats": "#ee7733", "dense": "#bbbbbb"}
_LABELS = {"codes": "codes", "floats": "codebooks and scales", "dense": "left dense"}


def draw_bytes(artifact: Artifact, target: Path | IO[bytes]) -> None:
    """Draw one bar for each layer, divided into codes and floats, and one for all dense tensors.

    With more than 24 layers the smallest ones share a bar. The PNG depends on the artifact alone.
    """
    from matplotlib.figure import Figure

    rows = _rows(artifact)
    figure = Figure(figsize=(8, 1.4 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for kind in _COLORS:
        starts = [row["codes"] if kind == "floats" else 0.0 for _, row in rows]
        widths = [row[kind] for _, row in rows]
        if any(widths):
            axes.barh(
                range(len(rows)), widths, left=starts, color=_COLORS[kind], label=_LABELS[kind]
            )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"size in {artifact.block.file} (kB), {artifact.header.file_bytes / 1e3:,.1f} kB in total"
    )
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(target, format="png", dpi=100, metadata={"Software": None})


def _rows(artifact: Artifact) -> list[tuple[str, dict[str, float]]]:
    """Labels and kB of each kind, layers in the order of the file."""
    rows: list[tuple[str, dict[str, float]]] = []
    tensors = artifact.header.tensors
    for key, entry in artifact.metadata.layers.items():
        kinds = {"codes": 0.0, "floats": 0.0, "dense": 0.0}
        for name, part in layer_parts(key, entry.code):
            kind = "codes" if isinstance(part, IndicesEntry) else "floats"
            kinds[kind] += tensors[name].nbytes / 1e3
        rows.append((printable_label(layer_name(key) or key), kinds))
    if len(rows) > _BARS:
        largest = sorted(rows, key=lambda row: -sum(row[1].values()))[: _BARS - 1]
        shown = {id(row) for row in largest}
        others = [row[1] for row in rows if id(row) not in shown]
        total = {kind: sum(kinds[kind] for kinds in others) for kind in _COLORS}
        rows = [row for row in rows if id(row) in shown]
        rows.append((f"{len(others)} smaller layers", total))
    dense = sum(tensor.nbytes for tensor in artifact.dense_tensors().values()) / 1e3
    count = len(artifact.dense_tensors())
    return [*rows, (f"{count} dense tensors", {"codes": 0.0, "floats": 0.0, "dense": dense})]
