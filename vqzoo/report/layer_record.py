"""The part of a record that describes one compressed layer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.schema import SEPARATOR
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.measures.distortion import MatrixError
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.plugin.code import Code, Indices
from vqzoo.plugin.selector import LayerInfo
from vqzoo.report.block import Block, Count, Number, Options


class TransformRecord(Block):
    """A transform that ran before the method."""

    name: str
    """Name of the transform."""
    options: Options
    """Its options as used, defaults included."""


class CodesRecord(Block):
    """The integer codes of a layer and the bits that they take."""

    count: Count
    """Number of codes."""
    stored_bits: Count
    """Bits of the packed streams on disk."""
    fixed_bits: Count
    """Bits at fixed width, ceil(log2 cardinality) per code."""
    entropy_bits: Number
    """Order-0 entropy in bits, each part by itself: no code of single symbols takes fewer."""


class LayerRecord(Block):
    """One compressed layer. Sizes count codes, codebooks and scales as stored."""

    name: str
    """Module path of the layer, such as `features.3`."""
    kind: str
    """`linear`, `conv1d` to `conv3d`, `conv_transpose1d` to `conv_transpose3d`, `embedding` or
    `attention`."""
    shape: tuple[Count, ...]
    """Shape of the dense weight."""
    method: str
    """Name of the method."""
    options: Options
    """The method's options as used, defaults and clamped values included."""
    transforms: tuple[TransformRecord, ...] = ()
    """Transforms that ran before the method, in order."""
    bits_per_weight: float
    """Stored bits divided by the number of weights."""
    ratio: float
    """fp32 bytes divided by stored bytes."""
    paper_bits: Number | None
    """Size in bits by the formula of the method's source; null where the source has none."""
    sqnr_db: float | None
    """10·log10(‖W‖² / ‖W - Ŵ‖²) of the decoded weight, in dB; null for an exact copy."""
    row_sqnr_db: float | None
    """The same in dB with every row counting alike; null for an exact copy."""
    bytes: Count
    """Stored bytes."""
    codes: CodesRecord
    """The layer's integer codes."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, such as an option that was clamped."""

    @property
    def method_text(self) -> str:
        """The transforms and the method as a rule spells them: "row-peaks+pq"."""
        return "+".join([*(step.name for step in self.transforms), self.method])

    def description(self) -> "LayerDescription":
        """Everything but sizes and errors."""
        return LayerDescription(
            layer=LayerInfo(self.name, self.kind, self.shape),
            method=self.method,
            options=self.options,
            transforms=self.transforms,
            paper_bits=self.paper_bits,
            notes=self.notes,
        )


@dataclass(frozen=True)
class LayerDescription:
    """How a layer was compressed: what stays the same when its floats are trained.

    Attributes:
        layer: the layer.
        method: name of the method.
        options: the method's options as used.
        transforms: transforms that ran before the method, in order.
        paper_bits: size in bits by the source's formula, None where it has none.
        notes: remarks for the user.
    """

    layer: LayerInfo
    method: str
    options: Options
    transforms: tuple[TransformRecord, ...]
    paper_bits: float | None
    notes: tuple[str, ...] = ()


def layer_record(compressed: CompressedLayer, encoded: EncodedLayer) -> LayerRecord:
    """The record of a layer that was just compressed and encoded."""
    description = LayerDescription(
        layer=compressed.layer,
        method=compressed.method,
        options=dict(compressed.options),
        transforms=transform_records((t.name, t.options) for t in compressed.transforms),
        paper_bits=compressed.paper_bits,
        notes=tuple(compressed.notes),
    )
    return measured_layer(description, compressed.compressed.code, encoded, compressed.error)


def measured_layer(
    description: LayerDescription, code: Code, encoded: EncodedLayer, error: MatrixError
) -> LayerRecord:
    """The record of a layer with the sizes of `encoded` and the distortion `error`.

    Args:
        code: the code that `encoded` holds in packed form.
    """
    layer = description.layer
    return LayerRecord(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        method=description.method,
        options=description.options,
        transforms=description.transforms,
        bits_per_weight=8 * encoded.nbytes / layer.numel,
        ratio=4 * layer.numel / encoded.nbytes,
        paper_bits=description.paper_bits,
        sqnr_db=error.sqnr_db,
        row_sqnr_db=error.row_sqnr_db,
        bytes=encoded.nbytes,
        codes=codes_record(code, encoded),
        notes=description.notes,
    )


def transform_records(
    transforms: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[TransformRecord, ...]:
    """Records of transforms, given their names and options."""
    return tuple(TransformRecord(name=name, options=dict(o)) for name, o in transforms)


def codes_record(code: Code, encoded: EncodedLayer) -> CodesRecord:
    """Count a layer's codes, its children's included, and the bits that they take."""
    parts = dict(_index_parts(code, encoded.key + SEPARATOR))
    return CodesRecord(
        count=sum(part.values.numel() for part in parts.values()),
        stored_bits=8 * sum(encoded.tensors[key].numel() for key in parts),
        fixed_bits=sum(part.values.numel() * part.bits for part in parts.values()),
        entropy_bits=sum(entropy_bits(part.values, part.cardinality) for part in parts.values()),
    )


def _index_parts(code: Code, prefix: str) -> Iterator[tuple[str, Indices]]:
    """A code's integer parts with the keys of their tensors, its children's too."""
    for name, part in code.parts.items():
        if isinstance(part, Indices):
            yield prefix + name, part
    for name, child in code.children.items():
        yield from _index_parts(child.code, f"{prefix}{name}.")
