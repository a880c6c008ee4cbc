"""The constants of Core ML programs, those that operations decode included."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo_importers.coded.factors import FactoredTensor
from vqzoo_importers.coded.integers import are_exact, grid
from vqzoo_importers.coded.residuals import ResidualTensor
from vqzoo_importers.coded.sparse import SparseTensor, scattered
from vqzoo_importers.coded.tables import TableTensor, unpack_bits
from vqzoo_importers.coreml_program import Operation
from vqzoo_importers.graph_network import Coded, Constant

_SPARSE = ("constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale")
Array = NDArray[Any]


@dataclass
class Values:
    """The constants of a program by the names of their tensors, and what decodes the others."""

    path: Path
    limit: int
    by_vqzoo: bool
    known: dict[str, Constant] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    products: dict[str, Mapping[str, Array]] = field(default_factory=dict)
    sparse: dict[str, TableTensor] = field(default_factory=dict)

    def take(self, operation: Operation) -> None:
        """Add what an operation computes, if that is constant."""
        if operation.kind != "const" and not operation.kind.startswith("constexpr_"):
            return
        inputs = dict(operation.constants)
        data = self.known.get(operation.inputs.get("data", ""))
        try:
            for name, tensor in operation.inputs.items():
                value = self.known.get(tensor)
                if value is None and name == "lut" and tensor in self.products:
                    product = self.products[tensor]
                    value = _rounded_products(
                        product["data"], product["scale"], product.get("offset")
                    )
                if value is None:
                    self.unknown[operation.output] = operation.kind
                    return
                inputs[name] = value.values() if isinstance(value, Coded) else value
            if operation.kind in _SPARSE:
                self._take_sparse(operation, inputs)
                return
            kept = self.sparse.get(operation.inputs.get("nonzero_data", ""))
            if kept is not None:
                value = _behind_its_mask(kept, inputs["mask"])
            elif self.by_vqzoo and operation.kind == "constexpr_blockwise_shift_scale":
                value = _in_float32(inputs["data"] if data is None else data, inputs)
            else:
                value = self._computed(operation.kind, inputs)
        except VqzooError as error:
            raise VqzooError(f"{self.path}: {operation.output}: {error}") from None
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise VqzooError(
                f"{self.path}: {operation.output} is no valid {operation.kind} ({error!r:.100})"
            ) from None
        if value is None:
            self.unknown[operation.output] = operation.kind
            if operation.kind == "constexpr_blockwise_shift_scale":
                self.products[operation.output] = inputs
        else:
            self.known[operation.output] = value

    def _take_sparse(self, operation: Operation, inputs: Mapping[str, Array]) -> None:
        """Add the two outputs of an operation on the values that pruning left: a mask, and the
        values that it computes, which are kept with the zeros between them."""
        mask_name, values_name = operation.outputs
        if operation.kind == "constexpr_lut_to_sparse":
            tensor, mask = _sparse_lookup(inputs, self.limit)
        else:
            mask = inputs["data_mask"]
            data = scattered(inputs["nonzero_data"], mask)
            grid = _grid(data, inputs["scale"], inputs.get("offset"), mask.astype(bool))
            if grid is None:
                self.unknown[mask_name] = self.unknown[values_name] = operation.kind
                return
            tensor = grid
        self.known[mask_name] = mask
        self.sparse[values_name] = tensor
        self.known[values_name] = tensor.values()[mask.astype(bool)]

    def _computed(self, kind: str, inputs: Mapping[str, Array]) -> Constant | None:
        if kind == "const":
            return inputs.get("val")
        if kind == "constexpr_lut_to_dense":
            if "shape" in inputs:
                return _flat_lookup(inputs["indices"], inputs["lut"], inputs["shape"], self.limit)
            return _lookup(inputs["indices"], inputs["lut"], inputs.get("vector_axis"), self.limit)
        if kind == "constexpr_affine_dequantize":
            data, scale = inputs["quantized_data"], inputs["scale"]
            return _by_axis(data, scale, inputs["zero_point"], int(inputs["axis"]))
        if kind == "constexpr_blockwise_shift_scale":
            return _grid(inputs["data"], inputs["scale"], inputs.get("offset"))
        if kind == "constexpr_sparse_to_dense":
            mask = inputs["mask"]
            if "shape" in inputs:
                mask = _flat_mask(mask, inputs["shape"], self.limit)
            return SparseTensor(scattered(inputs["nonzero_data"], mask), mask.astype(bool))
        return None

    def of(self, name: str) -> Constant:
        """The constant of a tensor.

        Raises:
            VqzooError: it is none, or is decoded in a way that is not imported.
        """
        if name in self.known:
            return self.known[name]
        how = self.unknown.get(name, "the network's inputs")
        raise VqzooError(f"{self.path}: {name} is computed by {how}, which is not imported")


def _check(shape: tuple[int, ...], codes: Array, entries: int, limit: int) -> None:
    if math.prod(shape) > limit:
        raise VqzooError(f"a weight of the shape {shape} is far larger than the network")
    if codes.dtype.kind not in "iu" or (
        codes.size and not 0 <= codes.min() <= codes.max() < entries
    ):
        raise VqzooError(f"codes are no integers below the {entries} entries of the table")


def _flat_lookup(packed: Array, lut: Array, shape: Array, limit: int) -> TableTensor:
    """Codes of as few bits as the table needs, packed, as iOS 16 has them."""
    sizes, bits = tuple(int(size) for size in shape), (lut.size - 1).bit_length()
    count = math.prod(sizes)
    if lut.ndim != 1 or lut.size != 1 << bits or not 1 <= bits <= 8:
        raise VqzooError(f"a table of the shape {lut.shape} is not one of 1 to 8 bits")
    if count > limit or packed.dtype != np.uint8 or packed.size != -(-count * bits // 8):
        raise VqzooError(f"{packed.size} bytes are not the codes of a weight of the shape {sizes}")
    codes = unpack_bits(packed.reshape(-1), bits, count)
    return TableTensor(lut, codes.astype(np.int32).reshape(sizes))


def _lookup(codes: Array, lut: Array, axis: Array | None, limit: int) -> TableTensor:
    """Codes of the table of their block; a table has scalars, or vectors that lie along an axis."""
    if lut.ndim != codes.ndim + 2:
        raise VqzooError(f"a table of the shape {lut.shape} does not fit codes of {codes.shape}")
    *blocks, entries, width = lut.shape
    place = 0 if axis is None else int(axis) % codes.ndim
    _check((*codes.shape, width), codes, entries, limit)
    if any(size % block for size, block in zip(codes.shape, blocks, strict=True)):
        raise VqzooError(f"codes of {codes.shape} are not in blocks of a table of {lut.shape}")
    tables = np.arange(math.prod(blocks)).reshape(blocks)
    for dimension, (size, block) in enumerate(zip(codes.shape, blocks, strict=True)):
        tables = np.repeat(tables, size // block, axis=dimension)
    first = (tables * entries + codes.astype(np.int64)) * width
    index = np.moveaxis(first[..., None] + np.arange(width), -1, place + 1)
    shape = list(codes.shape)
    shape[place] *= width
    return TableTensor(lut.reshape(-1), index.reshape(shape).astype(np.int32), width)


def _rounded_products(data: Array, scale: Array, offset: Array | None) -> Array:
    """The entries of a table as coremltools computes them, in the dtype of their scales."""
    values = data.astype(scale.dtype)
    if offset is not None:
        values = values - _repeated(offset, data.shape).astype(scale.dtype)
    products: Array = _repeated(scale, data.shape) * values
    return products


def _repeated(values: Array, shape: tuple[int, ...]) -> Array:
    """Values of blocks, repeated for a shape's elements."""
    for axis, (size, blocks) in enumerate(zip(shape, values.shape, strict=True)):
        if not blocks or size % blocks:
            raise VqzooError(f"an array of {shape} is not in blocks of {values.shape}")
        values = np.repeat(values, size // blocks, axis=axis)
    return values


def _by_axis(data: Array, scale: Array, zero: Array, axis: int) -> TableTensor | None:
    shape = [1] * data.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    zeros = np.broadcast_to(zero.reshape(-1), scale.size).reshape(shape)
    return _grid(data, scale.reshape(shape), zeros)


def _in_float32(data: Constant, inputs: Mapping[str, Array]) -> TableTensor | None:
    """Entries of a table, or integers, times scales in float16: the products in float32, which are
    what vqzoo's artifact had."""
    scale = inputs["scale"].astype(np.float32)
    if isinstance(data, ResidualTensor | SparseTensor | FactoredTensor):
        return None
    if not isinstance(data, TableTensor):
        return _grid(data, scale, inputs.get("offset"))
    if data.scale is not None or "offset" in inputs:
        return None
    for axis, (size, blocks) in enumerate(zip(data.shape, scale.shape, strict=True)):
        if not blocks or size % blocks:
            raise VqzooError(f"a weight of {data.shape} is not in blocks of {scale.shape}")
        scale = np.repeat(scale, size // blocks if blocks > 1 else 1, axis=axis)
    return data.times(scale)


def _sparse_lookup(inputs: Mapping[str, Array], limit: int) -> tuple[TableTensor, Array]:
    """The entries that codes of unpruned weights stand for, zeros at the others, and the mask."""
    mask, axis = inputs["indices_mask"], inputs.get("vector_axis")
    codes = scattered(inputs["indices_nonzero_data"], mask)
    tensor = _lookup(codes, inputs["lut"], axis, limit)
    if axis is not None:
        place = int(axis) % codes.ndim
        mask = np.repeat(mask, tensor.shape[place] // mask.shape[place], axis=place)
    index = np.where(mask.astype(bool), tensor.index, tensor.table.size).astype(np.int32)
    table = np.append(tensor.table, tensor.table.dtype.type(0))
    return TableTensor(table, index), mask


def _behind_its_mask(tensor: TableTensor, mask: Array) -> TableTensor:
    if mask.shape != tensor.shape or tensor.values()[~mask.astype(bool)].any():
        raise VqzooError("its values have another mask")
    return tensor


def _flat_mask(packed: Array, shape: Array, limit: int) -> Array:
    """Whether a value is stored, a bit for each, as iOS 16 has it."""
    sizes = tuple(int(size) for size in shape)
    count = math.prod(sizes)
    if count > limit or packed.dtype != np.uint8 or packed.size != -(-count // 8):
        raise VqzooError(f"{packed.size} bytes are not the mask of a weight of the shape {sizes}")
    return np.unpackbits(packed.reshape(-1), bitorder="little", count=count).reshape(sizes)


def _grid(
    data: Array, scale: Array, offset: Array | None, mask: Array | None = None
) -> TableTensor | None:
    """Integers, less their offsets, times the scale of their block, and zeros outside a mask; None
    unless that is rounded once, to the scales' dtype, in which Core ML subtracts, too."""
    whole = offset is None or offset.dtype.kind in "iu" or bool((offset == np.round(offset)).all())
    if data.dtype.kind not in "iu" or not whole:
        return None
    count = _repeated(np.arange(scale.size).reshape(scale.shape), data.shape)
    integers = data.astype(np.int64)
    if offset is not None:
        integers -= offset.astype(np.int64).reshape(-1)[count]
    if mask is not None:
        integers[~mask] = 0
    if scale.dtype == np.float16 and not are_exact(integers, "float16"):
        return None
    return grid(integers, scale, count)
