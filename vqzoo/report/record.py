"""The record of a run: what report.json and `--json` hold."""

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.schema import SEPARATOR
from vqzoo.compression.layer import CompressedLayer
from vqzoo.evaluation.accuracy import Agreement, Evaluation, paired_difference
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.plugin.code import Code, Indices
from vqzoo.plugin.manager import Plugins

_PACKAGES = ("vqzoo", "torch", "timm", "safetensors", "numba", "numpy")


def layer_row(compressed: CompressedLayer, encoded: EncodedLayer) -> dict[str, Any]:
    """One layer's row: sizes are bytes of its codes, codebooks and scales as stored."""
    layer = compressed.layer
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": list(layer.shape),
        "method": compressed.method,
        "options": dict(compressed.options),
        "transforms": [
            {"name": step.name, "options": dict(step.options)} for step in compressed.transforms
        ],
        "bits_per_weight": 8 * encoded.nbytes / layer.numel,
        "ratio": 4 * layer.numel / encoded.nbytes,
        "paper_bits": compressed.paper_bits,
        "sqnr_db": compressed.error.sqnr_db,
        "row_sqnr_db": compressed.error.row_sqnr_db,
        "bytes": encoded.nbytes,
        "codes": codes_block(compressed.compressed.code, encoded),
        "notes": list(compressed.notes),
    }


def codes_block(code: Code, encoded: EncodedLayer) -> dict[str, Any]:
    """What a layer's codes take, in bits: as stored, in fixed width, and by the entropy (of order
    0, each part by itself), which no code of single symbols can beat."""
    parts = dict(_index_parts(code, encoded.key + SEPARATOR))
    return {
        "count": sum(part.values.numel() for part in parts.values()),
        "stored_bits": 8 * sum(encoded.tensors[key].numel() for key in parts),
        "fixed_bits": sum(part.values.numel() * part.bits for part in parts.values()),
        "entropy_bits": sum(entropy_bits(part.values, part.cardinality) for part in parts.values()),
    }


def _index_parts(code: Code, prefix: str) -> Iterator[tuple[str, Indices]]:
    """A code's integer parts with the keys of their tensors, its children's too."""
    for name, part in code.parts.items():
        if isinstance(part, Indices):
            yield prefix + name, part
    for name, child in code.children.items():
        yield from _index_parts(child.code, f"{prefix}{name}.")


def ratios(rows: Sequence[Mapping[str, Any]], dense: int, file: int) -> dict[str, float | None]:
    """The three ratios, dense fp32 over compressed.

    `layers`: every byte that the compressed layers need; `file`: the dense safetensors file over
    the artifact's; `theoretical`: the sources' own formulas over the compressed layers, None
    where a method has none.
    """
    weights = sum(math.prod(row["shape"]) for row in rows)
    paper = [row["paper_bits"] for row in rows]
    return {
        "layers": 4 * weights / sum(row["bytes"] for row in rows),
        "file": dense / file,
        "theoretical": None if None in paper else 32 * weights / sum(paper),
    }


def accuracy_block(dense: Evaluation, compressed: Evaluation) -> dict[str, Any]:
    """Accuracy before and after, in percent, and the paired difference in points (no interval
    from a single image)."""
    difference = paired_difference(dense, compressed) if dense.images > 1 else None
    return {
        "data": dense.data,
        "images": dense.images,
        "dense": {"top1": dense.top1, "top5": dense.top5},
        "compressed": {"top1": compressed.top1, "top5": compressed.top5},
        "difference": {
            "top1": compressed.top1 - dense.top1,
            "ci95": difference.half_width if difference else None,
        },
    }


def agreement_block(agreement: Agreement) -> dict[str, Any]:
    """How far the compressed network agrees with the dense one on images without labels.

    `kl` is None where logits were not finite.
    """
    return {
        "data": agreement.data,
        "images": agreement.images,
        "top1": agreement.top1,
        "kl": agreement.kl if math.isfinite(agreement.kl) else None,
    }


def versions(plugins: Plugins) -> dict[str, str]:
    """Versions of what took part, other people's plugins included."""
    found = {name: version(name) for name in _PACKAGES}
    found |= {s.origin.distribution: s.origin.version for s in plugins.statuses if not s.problem}
    return {"python": platform.python_version(), **found}
