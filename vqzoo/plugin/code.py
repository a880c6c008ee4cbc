"""The code of a weight matrix: named tensors and small facts, independent of files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from torch import Tensor

from vqzoo.numerics.arrays import code_dtype
from vqzoo.plugin.limits import StorageDtype

Fact = int | float | str | bool

STORAGE_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in get_args(StorageDtype)
}


@dataclass(frozen=True)
class Indices:
    """Integer codes.

    Attributes:
        values: integer tensor of any shape, 0 <= value < cardinality.
        cardinality: number of symbols (k for a codebook of k centroids), 1 to 65,536.
    """

    values: Tensor
    cardinality: int

    @classmethod
    def layout(cls, cardinality: int, *shape: int) -> "Indices":
        """Codes without values: an int64 tensor of this shape on the meta device."""
        return cls(torch.empty(shape, dtype=torch.int64, device="meta"), cardinality)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the codes."""
        return tuple(self.values.shape)

    def as_read(self) -> "Indices":
        """The same codes as they are read from an artifact: contiguous, uint8 up to 256 symbols,
        int32 beyond."""
        return replace(self, values=self.values.to(code_dtype(self.cardinality)).contiguous())

    def narrow(self, axis: int, start: int, stop: int) -> "Indices":
        """The codes from `start` to `stop` - 1 along an axis, in the same memory if possible."""
        return Indices(self.values.narrow(axis, start, stop - start), self.cardinality)

    def to(self, device: torch.device) -> "Indices":
        """The same codes on a device."""
        return replace(self, values=self.values.to(device))

    @property
    def bits(self) -> int:
        """Fixed width of one code in bits: ceil(log2(cardinality)), at least 1."""
        return index_bits(self.cardinality)


@dataclass(frozen=True)
class Floats:
    """Continuous values (a codebook, scales, factors), exactly as a file stores them.

    Attributes:
        stored: float16, bfloat16 or float32 tensor of any shape.
        exponent: the values are stored · 2^exponent.
    """

    stored: Tensor
    exponent: int = 0

    @classmethod
    def layout(cls, dtype: str, *shape: int) -> "Floats":
        """Floats without values: a tensor of this storage dtype and shape on the meta device."""
        return cls(torch.empty(shape, dtype=STORAGE_DTYPES[dtype], device="meta"))

    @classmethod
    def of(cls, values: Tensor, dtype: str = "float16") -> "Floats":
        """Round `values` to a storage dtype: "float16", "bfloat16" or "float32".

        In float16 a power-of-two scale protects values from overflow (above 65,504) and from
        becoming subnormal; it is used if the largest magnitude is outside [2^-6, 2^15].
        """
        storage = STORAGE_DTYPES[dtype]
        peak = float(values.abs().max()) if values.numel() else 0.0
        exponent = 0
        if storage == torch.float16 and peak > 0 and not 2**-6 <= peak <= 2**15:
            exponent = math.frexp(peak)[1]
        return cls._scaled(values, storage, exponent)

    @classmethod
    def scales(cls, values: Tensor) -> "Floats":
        """Round factors whose relative error matters, small ones included, to float16.

        Where values would overflow or become subnormal, a power-of-two scale puts the largest
        magnitude just under 2^15: the relative error is at most 2^-11 for magnitudes down to 2^-28
        of the largest.
        """
        magnitudes = values.abs()
        peak = float(magnitudes.max()) if values.numel() else 0.0
        small = bool(((magnitudes > 0) & (magnitudes < 2**-14)).any())
        exponent = math.frexp(peak)[1] - 15 if small or peak > 2**15 else 0
        return cls._scaled(values, torch.float16, exponent)

    @classmethod
    def _scaled(cls, values: Tensor, storage: torch.dtype, exponent: int) -> "Floats":
        scaled = values.double() * 2.0**-exponent if exponent else values
        return cls(scaled.to(storage), exponent)

    def narrow(self, axis: int, start: int, stop: int) -> "Floats":
        """The values from `start` to `stop` - 1 along an axis, in the same memory."""
        return replace(self, stored=self.stored.narrow(axis, start, stop - start))

    def to(self, device: torch.device) -> "Floats":
        """The same values on a device."""
        return replace(self, stored=self.stored.to(device))

    def times_power(self, exponent: int) -> "Floats":
        """The values times 2^exponent, exactly."""
        return replace(self, exponent=self.exponent + exponent)

    def as_read(self) -> "Floats":
        """The same values as they are read from an artifact: contiguous.

        The rounding of a matrix product depends on the memory layout of its factors.
        """
        return replace(self, stored=self.stored.contiguous())

    def rounded(self, values: Tensor) -> "Floats":
        """Round other values to this storage dtype, with this exponent unless they overflow it."""
        peak = float(values.abs().max()) if values.numel() else 0.0
        if self.dtype != "float16" or peak * 2.0**-self.exponent < 2**15:
            return self._scaled(values, self.stored.dtype, self.exponent)
        return self.of(values, self.dtype)

    @property
    def values(self) -> Tensor:
        """The represented values, float32."""
        if not self.exponent:
            return self.stored.float()
        return (self.stored.double() * 2.0**self.exponent).float()

    @property
    def dtype(self) -> str:
        """Name of the storage dtype: "float16", "bfloat16" or "float32"."""
        return str(self.stored.dtype).removeprefix("torch.")


Part = Indices | Floats


@dataclass(frozen=True)
class Code:
    """One compressed matrix.

    Attributes:
        shape: (m, n) of the matrix.
        parts: named tensors; names are identifiers ("codes", "codebook", "scale").
        facts: small scalars that decoding needs (a sub-vector length, a flag).
        children: matrices that another method compressed in turn ("prune, then any quantizer on
            the survivors"); their names differ from those of the parts. A child's matrix has at
            most four times as many elements as this one (enough to pad both sides to a power of
            two).
    """

    shape: tuple[int, int]
    parts: Mapping[str, Part]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    children: Mapping[str, "MethodCode"] = field(default_factory=dict)

    def indices(self, name: str) -> Tensor:
        """The integer values of a part.

        Raises:
            KeyError: there is no such part.
            ValueError: the part holds floats.
        """
        return self.index_part(name).values

    def index_part(self, name: str) -> Indices:
        """The part whose values `indices` gives, as it is in memory: its codes may be packed.

        Raises:
            KeyError: there is no such part.
            ValueError: the part holds floats.
        """
        part = self.parts[name]
        if not isinstance(part, Indices):
            raise ValueError(f"part {name!r} holds floats, not indices")
        return part

    def require_indices(self, name: str, *shapes: tuple[int, ...]) -> Indices:
        """The integer part `name`, whose shape must be one of `shapes`; -1 stands for any size.

        Raises:
            ValueError: the part is missing, holds floats, or has another shape.
        """
        part = self.parts.get(name)
        if not isinstance(part, Indices):
            raise ValueError(f"part {name!r} is missing or holds floats")
        _require_shape(name, part.values, shapes)
        return part

    def require_floats(self, name: str, *shapes: tuple[int, ...]) -> Floats:
        """The float part `name`, whose shape must be one of `shapes`; -1 stands for any size.

        Raises:
            ValueError: the part is missing, holds indices, or has another shape.
        """
        part = self.parts.get(name)
        if not isinstance(part, Floats):
            raise ValueError(f"part {name!r} is missing or holds indices")
        _require_shape(name, part.stored, shapes)
        return part

    def require_fact(self, name: str, low: int, high: int) -> int:
        """The integer fact `name`, which must lie between `low` and `high`, both included.

        Raises:
            ValueError: the fact is missing, not an integer, or out of bounds.
        """
        value = self.facts.get(name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"fact {name!r} is {value!r}, not an integer from {low} to {high}")
        return value

    def times_power(self, exponent: int, *prefixes: str) -> "Code":
        """The code of the matrix times 2^exponent.

        A matrix of huge or tiny weights can so be compressed as one of usual weights; see
        `vqzoo.numerics.arrays.excess_exponent`.

        Args:
            exponent: of the power of two.
            prefixes: of the names of float parts that the matrix is linear in; the first one that
                any part has counts.
        """
        named = [[name for name in self.parts if name.startswith(start)] for start in prefixes]
        changed = next(filter(None, named), [])
        scaled = {name: part for name, part in self.parts.items() if isinstance(part, Floats)}
        return replace(
            self,
            parts={**self.parts, **{n: scaled[n].times_power(exponent) for n in changed}},
        )

    def narrow(self, start: int, stop: int, /, **axes: int) -> "Code":
        """The code of rows `start` to `stop` - 1 of a matrix whose rows have their own codes.

        Args:
            start: the first row.
            stop: the row behind the last one.
            axes: of the parts that have an entry for each row, the axis along which rows lie. The
                other parts are shared.
        """
        parts = {
            name: part.narrow(axes[name], start, stop) if name in axes else part
            for name, part in self.parts.items()
        }
        return replace(self, shape=(stop - start, self.shape[1]), parts=parts)

    def floats(self, replacements: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Every float part as float32, by name, or what replaces it, which costs no copy."""
        replaced = {n: v for n, v in (replacements or {}).items() if n in self.parts}
        return replaced | {
            name: part.values
            for name, part in self.parts.items()
            if isinstance(part, Floats) and name not in replaced
        }


@dataclass(frozen=True)
class MethodCode:
    """A Code and the registered name of the method that decodes it."""

    method: str
    code: Code


def index_bits(cardinality: int) -> int:
    """Bits of one fixed-width code: ceil(log2(cardinality)), at least 1."""
    return max(1, (cardinality - 1).bit_length())


def stored_bits(code: Code) -> int:
    """Size of `code` in bits with fixed-width codes, each part padded to whole bytes."""
    total = sum(stored_bits(child.code) for child in code.children.values())
    for part in code.parts.values():
        if isinstance(part, Indices):
            total += 8 * math.ceil(part.values.numel() * part.bits / 8)
        else:
            total += part.stored.numel() * part.stored.element_size() * 8
    return total


def _require_shape(name: str, tensor: Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    actual = tuple(tensor.shape)
    for shape in shapes:
        if len(shape) == len(actual) and all(
            a in (-1, b) for a, b in zip(shape, actual, strict=True)
        ):
            return
    raise ValueError(f"part {name!r} has shape {actual}, not {' or '.join(map(str, shapes))}")
