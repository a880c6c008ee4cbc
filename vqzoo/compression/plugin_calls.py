"""Calls into quantizers and transforms; whatever they return is checked before it is used."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vqzoo.compression.check import (
    check_code,
    check_decoded,
    check_matrix,
    check_options,
    check_shape,
)
from vqzoo.compression.options import validate_options
from vqzoo.errors import PluginError
from vqzoo.plugin.code import Code, Indices, MethodCode
from vqzoo.plugin.isolation import isolated, named, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import LayerContext
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Registered
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.plugin.selector import LayerInfo
from vqzoo.plugin.transform import Transform


@dataclass(frozen=True)
class Statistics:
    """What calibration images say about a layer; see `LayerContext`.

    Attributes:
        inputs: a sample of its inputs, (r, n) float32.
        second_order: what errors of its weights do to the logits.
    """

    inputs: Tensor | None = None
    second_order: SecondOrder | None = None


class InSequence(Mapping[str, Statistics]):
    """Statistics that depend on the layers compressed before.

    Whoever compresses asks for the statistics of each layer once, in `order`.

    Attributes:
        order: all layers, in the order in which they are to be compressed.
    """

    order: Sequence[str]

    @abstractmethod
    def put(self, name: str, matrix: Tensor) -> None:
        """Take the decoded matrix of a layer, (m, n); it is not changed."""

    @abstractmethod
    def close(self) -> None:
        """Give up what asking for further layers would need."""


def layer_context(
    plugins: Plugins,
    layer: LayerInfo,
    *,
    seed: int,
    device: torch.device,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    statistics: Statistics | None = None,
) -> LayerContext:
    """The `LayerContext` of a layer.

    Args:
        plugins: the methods that `context.quantize` may call.
        layer: the layer.
        seed: the run's.
        device: where to compute.
        note: takes a line that the user should see.
        progress: takes (done, total) steps.
        statistics: what calibration gathered about the layer, if anything.
    """

    def quantize_child(name: str, matrix: Tensor, values: Mapping[str, Any]) -> MethodCode:
        entry = plugins.quantizers.get(name)
        options = validate_options(entry.item, values)
        with isolated(on_layer(entry, layer.name)):
            fitted = entry.item.fit(*matrix_shape(matrix), options, note)
        return quantize_matrix(plugins, entry, matrix.contiguous(), fitted, uncalibrated)

    # The columns of a child are not the layer's: statistics of the layer say nothing about them.
    uncalibrated = LayerContext(
        layer=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        groups=layer.groups,
        seed=layer_seed(seed, layer.name),
        device=device,
        note=note,
        progress=progress,
        quantize=quantize_child,
    )
    if statistics is None:
        return uncalibrated
    inputs, second_order = statistics.inputs, statistics.second_order
    return replace(
        uncalibrated,
        inputs=None if inputs is None else inputs.to(device),
        second_order=None if second_order is None else second_order.to(device),
    )


def layer_seed(seed: int, name: str) -> int:
    """A layer's seed, from the run's; it does not depend on the other layers."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "little")


def transform_matrix(
    entry: Registered[Transform], matrix: Tensor, options: Any, context: LayerContext
) -> tuple[Tensor, Code]:
    """Run one transform.

    Returns:
        The matrix to quantize (contiguous), and the Code that `wrap` completes.

    Raises:
        SkipLayer: the transform cannot take this matrix.
        PluginError: it failed, or did not return a finite float32 matrix and a Code of the shape of
            `matrix`.
    """
    who = on_layer(entry, context.layer)
    check_matrix(matrix, f"the input of {who}")
    check_options(options, entry.item, who)
    with isolated(who):
        result = entry.item.forward(matrix, options, context)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise PluginError(f"{who} did not return a matrix and a Code")
    transformed, code = result
    check_matrix(transformed, f"the matrix that {who} returned")
    check_shape(code, matrix_shape(matrix), who)
    return transformed.contiguous(), code


def wrap(
    plugins: Plugins,
    entry: Registered[Transform],
    code: Code,
    inner: MethodCode,
    context: LayerContext,
) -> MethodCode:
    """A transform's code with the quantized matrix as its child.

    Raises:
        PluginError: the code breaks the contract.
    """
    code = replace(code, children={**code.children, Transform.CHILD: inner})
    who = on_layer(entry, context.layer)
    with isolated(who):
        check_code(code, code.shape, entry.item, who)
    return MethodCode(plugins.method_name(entry), _as_stored(code))


def quantize_matrix(
    plugins: Plugins,
    entry: Registered[Quantizer],
    matrix: Tensor,
    options: Any,
    context: LayerContext,
) -> MethodCode:
    """Call a quantizer, with options that fit the matrix, and check its Code.

    Raises:
        SkipLayer: the quantizer cannot compress this matrix.
        PluginError: it failed or broke its contract.
    """
    who = on_layer(entry, context.layer)
    check_matrix(matrix, f"the input of {who}")
    with isolated(who):
        code = entry.item.quantize(matrix, options, context)
        check_code(code, matrix_shape(matrix), entry.item, who)
    return MethodCode(plugins.method_name(entry), _as_stored(code))


def reassigned(
    compressed: MethodCode,
    params: Mapping[str, Tensor],
    gradient: Tensor,
    curvature: Tensor,
    share: float,
    plugins: Plugins,
) -> MethodCode | None:
    """A code some of whose integers its method has changed; see `Method.reassign`.

    Args:
        compressed: a code without children.
        params: its floats, which may differ from those in the code.
        gradient: of the loss with respect to the matrix, (m, n).
        curvature: of the loss, (m, n).
        share: of the codes, that may change.
        plugins: the installed methods.

    Raises:
        PluginError: the method failed, or changed something else.
    """
    entry = plugins.method(compressed.method)
    who, code = named(entry), compressed.code
    with isolated(who):
        changed = entry.item.reassign(code, params, gradient, curvature, share)
        if changed is None:
            return None
        check_code(changed, code.shape, entry.item, who)
    if not _differ_in_integers_alone(code, changed):
        raise PluginError(f"{who} changed more than the integers of a code")
    return MethodCode(compressed.method, _as_stored(changed))


def _differ_in_integers_alone(one: Code, other: Code) -> bool:
    if one.facts != other.facts or one.children or other.children:
        return False
    if list(one.parts) != list(other.parts):
        return False
    for name, part in one.parts.items():
        changed = other.parts[name]
        if isinstance(part, Indices):
            if not isinstance(changed, Indices) or part.cardinality != changed.cardinality:
                return False
            if part.values.shape != changed.values.shape:
                return False
        elif changed is not part:
            return False
    return True


def decode_new(compressed: MethodCode, plugins: Plugins, layer: str) -> Tensor:
    """Decode a code that was just made for `layer`: float32, (m, n).

    Raises:
        PluginError: a method failed, or what it returned is not a finite float32 matrix of the
            code's shape.
    """
    code = compressed.code
    params = code.floats()
    for name, child in code.children.items():
        params[name] = decode_new(child, plugins, layer)
    entry = plugins.method(compressed.method)
    who = on_layer(entry, layer)
    with isolated(who):
        decoded = entry.item.decode(code, params)
    check_decoded(decoded, code.shape, who)
    return decoded


def _as_stored(code: Code) -> Code:
    """The code with its parts as reading returns them: what is measured is what is loaded."""
    parts = {name: part.as_read() for name, part in code.parts.items()}
    return replace(code, parts=parts)


def matrix_shape(matrix: Tensor) -> tuple[int, int]:
    """(m, n)."""
    m, n = matrix.shape
    return m, n
