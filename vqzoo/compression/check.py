"""The core's own look at what a plugin returned: nonsense is named and never stored."""

import math
import re

import torch
from torch import Tensor

from vqzoo.errors import PluginError, one_line
from vqzoo.numerics.arrays import all_finite
from vqzoo.plugin.code import STORAGE_DTYPES, Code, Floats, Indices, MethodCode
from vqzoo.plugin.limits import (
    MAX_CARDINALITY,
    MAX_CHILD_GROWTH,
    MAX_FACT_LENGTH,
    MAX_NAME_LENGTH,
    PART_NAME,
)
from vqzoo.plugin.method import Method


def check_matrix(matrix: Tensor, what: str) -> None:
    """Refuse what no quantizer need take: a transform or a composite method may have made it.

    Raises:
        PluginError: not a float32 matrix, empty, or not finite.
    """
    if not isinstance(matrix, Tensor) or matrix.dim() != 2 or matrix.dtype != torch.float32:
        raise PluginError(f"{what} is not a float32 matrix")
    if not matrix.numel():
        raise PluginError(f"{what} is empty")
    if not all_finite(matrix):
        raise PluginError(f"{what} holds NaN or infinite values")


def check_options(options: object, method: Method, who: str) -> None:
    """Refuse options that no record could hold.

    Raises:
        PluginError: not an instance of the method's Options, or values that are no scalars.
    """
    if not isinstance(options, method.Options):
        raise PluginError(f"{who} made options of type {type(options).__name__}")
    for name, value in options.model_dump().items():
        if not (value is None or isinstance(value, int | float | str)):
            raise PluginError(f"{who}: option {name!r} is a {type(value).__name__}, not a scalar")


def check_paper_bits(bits: object, who: str) -> None:
    """Refuse a theoretical size that is none.

    Raises:
        PluginError: neither None nor a positive number.
    """
    sound = isinstance(bits, int | float) and math.isfinite(bits) and bits > 0
    if not (bits is None or sound):
        raise PluginError(f"{who}: paper_bits gave {bits!r:.40}, not a size")


def check_decoded(decoded: Tensor, shape: tuple[int, int], who: str) -> None:
    """Refuse a decoded matrix that could not take the place of what was compressed.

    Raises:
        PluginError: another shape or dtype, or values that are not finite.
    """
    if not isinstance(decoded, Tensor):
        raise PluginError(f"{who} decoded to {type(decoded).__name__}, not a tensor")
    if decoded.shape != shape or decoded.dtype != torch.float32:
        raise PluginError(
            f"{who} decoded to {tuple(decoded.shape)} {decoded.dtype}, not {tuple(shape)} float32"
        )
    if not all_finite(decoded):
        raise PluginError(f"{who} decoded to NaN or infinite values")


def check_shape(code: object, shape: tuple[int, int], who: str) -> None:
    """Refuse what is no Code for a matrix of this shape.

    Raises:
        PluginError: not a Code, or of another shape.
    """
    if not isinstance(code, Code):
        raise PluginError(f"{who} returned {type(code).__name__}, not a Code")
    if tuple(code.shape) != tuple(shape):
        raise PluginError(f"{who} returned a Code of shape {code.shape} for a {shape} matrix")


def check_code(code: Code, shape: tuple[int, int], method: Method, who: str) -> None:
    """Refuse a Code that breaks the contract.

    Raises:
        PluginError: wrong type or shape, bad part names, codes out of range, values not finite.
    """
    check_shape(code, shape, who)
    names = [*code.parts, *code.children]
    if not names:
        raise PluginError(f"{who} returned a Code without parts: there is nothing to store")
    bad = [name for name in names if not re.fullmatch(PART_NAME, name)]
    if bad or len(set(names)) != len(names):
        raise PluginError(f"{who}: part names must be distinct and of a-z, 0-9 and _: {names}")
    for name, part in code.parts.items():
        if isinstance(part, Indices):
            _check_indices(part, f"{who}, part {name!r}")
        elif isinstance(part, Floats):
            _check_floats(part, f"{who}, part {name!r}")
        else:
            raise PluginError(
                f"{who}: part {name!r} is a {type(part).__name__}: make it Indices(tensor, "
                "cardinality) or Floats.of(tensor)"
            )
    for name, fact in code.facts.items():
        if not isinstance(fact, int | float | str | bool):
            raise PluginError(f"{who}: fact {name!r} is a {type(fact).__name__}, not a scalar")
        long = isinstance(fact, str) and len(fact) > MAX_FACT_LENGTH
        if long or not 1 <= len(name) <= MAX_NAME_LENGTH:
            raise PluginError(f"{who}: fact {name!r:.80} is too long")
        if isinstance(fact, float) and not math.isfinite(fact):
            raise PluginError(f"{who}: fact {name!r} is {fact}")
    for name, child in code.children.items():
        if not isinstance(child, MethodCode):
            raise PluginError(f"{who}: child {name!r} is not what context.quantize returned")
        if math.prod(child.code.shape) > MAX_CHILD_GROWTH * math.prod(shape):
            raise PluginError(
                f"{who}: child {name!r} of shape {child.code.shape} is more than "
                f"{MAX_CHILD_GROWTH} times as large as the {shape} matrix"
            )
    try:
        method.check(code)
    except Exception as error:
        raise PluginError(f"{who} made a code that it refuses itself: {one_line(error)}") from error


def _check_indices(part: Indices, where: str) -> None:
    values = part.values
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise PluginError(f"{where} has dtype {values.dtype}: integer codes are needed")
    if not 1 <= part.cardinality <= MAX_CARDINALITY:
        raise PluginError(f"{where} has {part.cardinality} symbols; 1 to {MAX_CARDINALITY} fit")
    if values.numel():
        low, high = (int(bound) for bound in torch.aminmax(values))
        if low < 0 or high >= part.cardinality:
            raise PluginError(f"{where} has codes {low}..{high} outside 0..{part.cardinality - 1}")


def _check_floats(part: Floats, where: str) -> None:
    if part.stored.dtype not in STORAGE_DTYPES.values():
        raise PluginError(f"{where} is stored as {part.stored.dtype}")
    if not all_finite(part.stored):
        raise PluginError(f"{where} holds NaN or infinite values")
