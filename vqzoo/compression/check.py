"""Checks of weights, and of everything that a plugin returns before it is used or stored."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqzoo.compression.selection import LayerPlan
from vqzoo.compression.view import weight_key
from vqzoo.errors import PluginError, VqzooError, one_line
from vqzoo.numerics.arrays import all_finite
from vqzoo.plugin.code import STORAGE_DTYPES, Code, Floats, Indices, MethodCode
from vqzoo.plugin.limits import (
    MAX_CARDINALITY,
    MAX_CHILD_GROWTH,
    MAX_CODES_PER_WEIGHT,
    MAX_DIMENSIONS,
    MAX_EXPONENT,
    MAX_FACT_LENGTH,
    MAX_NAME_LENGTH,
    MAX_NUMEL,
    PART_NAME,
)
from vqzoo.plugin.method import Method


def check_weights(model: nn.Module, plans: Sequence[LayerPlan]) -> None:
    """Refuse weights that are not finite, before any work is done.

    Raises:
        VqzooError: names the first such layer.
    """
    for plan in plans:
        layer = plan.layer.name
        weight = model.get_parameter(weight_key(layer))
        if not weight.numel():
            raise VqzooError(f"layer {layer} has no weights")
        if not all_finite(weight):
            bad = weight.numel() - int(torch.isfinite(weight).sum())
            raise VqzooError(
                f"layer {layer} has {bad} NaN or infinite weights: fix the checkpoint, or exclude "
                f"the layer with --layers '!{layer}'"
            )


def check_matrix(matrix: Tensor, what: str) -> None:
    """Refuse a matrix that no quantizer has to accept; a plugin may have made it.

    Args:
        matrix: the matrix, or whatever a plugin returned as one.
        what: how the error names it.

    Raises:
        PluginError: it is not a float32 matrix, is empty, or is not finite.
    """
    if not isinstance(matrix, Tensor) or matrix.dim() != 2 or matrix.dtype != torch.float32:
        raise PluginError(f"{what} is not a float32 matrix")
    if not matrix.numel():
        raise PluginError(f"{what} is empty")
    if not all_finite(matrix):
        raise PluginError(f"{what} holds NaN or infinite values")


def check_options(options: object, method: Method, who: str) -> None:
    """Refuse options that a record cannot hold.

    Raises:
        PluginError: they are not an instance of the method's Options, or a value is not a scalar.
    """
    if not isinstance(options, method.Options):
        raise PluginError(f"{who} returned options of type {type(options).__name__}")
    for name, value in options.model_dump().items():
        if not (value is None or isinstance(value, int | float | str)):
            raise PluginError(f"{who}: option {name!r} is a {type(value).__name__}, not a scalar")


def check_paper_bits(bits: object, who: str) -> None:
    """Refuse a theoretical size that is not a size.

    Raises:
        PluginError: it is neither None nor a positive number.
    """
    valid = isinstance(bits, int | float) and math.isfinite(bits) and bits > 0
    if not (bits is None or valid):
        raise PluginError(f"{who}: paper_bits returned {bits!r:.40}, not a size")


def check_decoded(decoded: Tensor, shape: tuple[int, int], who: str) -> None:
    """Refuse a decoded matrix that cannot replace the compressed one.

    Raises:
        PluginError: it has another shape or dtype, or values that are not finite.
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
    """Refuse anything but a Code for a matrix of this shape.

    Raises:
        PluginError: it is not a Code, or has another shape.
    """
    if not isinstance(code, Code):
        raise PluginError(f"{who} returned {type(code).__name__}, not a Code")
    if tuple(code.shape) != tuple(shape):
        raise PluginError(f"{who} returned a Code of shape {code.shape} for a {shape} matrix")


def check_code(code: Code, shape: tuple[int, int], method: Method, who: str) -> None:
    """Refuse a Code that breaks the contract.

    Raises:
        PluginError: it has the wrong type or shape, bad part names, codes out of range, or values
            that are not finite.
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
                f"{who}: part {name!r} is a {type(part).__name__}: it must be Indices(tensor, "
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
        raise PluginError(
            f"{who} returned a code that its own check refuses: {one_line(error)}"
        ) from error


def check_code_count(code: Code, weights: int, who: str) -> None:
    """Refuse more codes than a reader accepts for so many weights.

    Raises:
        PluginError: there are too many.
    """
    count = _code_count(code)
    if count > MAX_CODES_PER_WEIGHT * weights:
        raise PluginError(
            f"{who} returned {count} codes for {weights} weights: there may be "
            f"{MAX_CODES_PER_WEIGHT} for each"
        )


def _code_count(code: Code) -> int:
    parts = sum(p.values.numel() for p in code.parts.values() if isinstance(p, Indices))
    return parts + sum(_code_count(child.code) for child in code.children.values())


def _check_size(tensor: Tensor, where: str) -> None:
    if tensor.dim() > MAX_DIMENSIONS or tensor.numel() > MAX_NUMEL:
        raise PluginError(
            f"{where} has the shape {tuple(tensor.shape)}: there may be {MAX_DIMENSIONS} "
            f"dimensions and {MAX_NUMEL} elements"
        )


def _check_indices(part: Indices, where: str) -> None:
    values = part.values
    _check_size(values, where)
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise PluginError(f"{where} has dtype {values.dtype}: codes must be integers")
    if not 1 <= part.cardinality <= MAX_CARDINALITY:
        raise PluginError(
            f"{where} has {part.cardinality} symbols: there may be 1 to {MAX_CARDINALITY}"
        )
    if values.numel():
        low, high = (int(bound) for bound in torch.aminmax(values))
        if low < 0 or high >= part.cardinality:
            raise PluginError(f"{where} has codes {low}..{high} outside 0..{part.cardinality - 1}")


def _check_floats(part: Floats, where: str) -> None:
    _check_size(part.stored, where)
    if abs(part.exponent) > MAX_EXPONENT:
        raise PluginError(
            f"{where} has the exponent {part.exponent}: it must be between -{MAX_EXPONENT} and "
            f"{MAX_EXPONENT}"
        )
    if part.stored.dtype not in STORAGE_DTYPES.values():
        raise PluginError(
            f"{where} is stored as {part.stored.dtype}: it must be {', '.join(STORAGE_DTYPES)}"
        )
    if not all_finite(part.stored):
        raise PluginError(f"{where} holds NaN or infinite values")
