"""Compress layers one by one: view, choose options, transform, quantize, check, measure."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vqzoo.compression.check import (
    check_code,
    check_decoded,
    check_matrix,
    check_options,
    check_paper_bits,
    check_shape,
)
from vqzoo.compression.distortion import MatrixError, matrix_error
from vqzoo.compression.selection import LayerPlan, MethodChoice, TransformChoice
from vqzoo.compression.view import weight_key, weight_matrix
from vqzoo.errors import PluginError, UsageError, VqzooError, cause, invalid_field
from vqzoo.numerics.arrays import all_finite
from vqzoo.plugin.code import Code, MethodCode, stored_bits
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import LayerContext, Method, Options, SkipLayer
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Registered
from vqzoo.plugin.selector import LayerInfo
from vqzoo.plugin.transform import Transform
from vqzoo.progress import Progress

DEFAULT_RATIO = 16.0


@dataclass(frozen=True)
class CompressedLayer:
    """One compressed layer.

    Attributes:
        layer: what it was.
        compressed: its code.
        options: the method's options as used, defaults and clamped values included.
        error: measured on the decoded matrix, storage rounding included.
        paper_bits: bits by the source's own formula, None where it has none.
        transforms: what ran before the method, the first one first: name, options as used.
        notes: what the user should know.
    """

    layer: LayerInfo
    compressed: MethodCode
    options: Mapping[str, Any]
    error: MatrixError
    paper_bits: float | None
    transforms: tuple[TransformChoice, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The quantizer, behind the transforms."""
        inner = self.compressed
        for _ in self.transforms:
            inner = inner.code.children[Transform.CHILD]
        return inner.method


@dataclass(frozen=True)
class _Undone:
    """A transform that ran, its options, and what undoes it."""

    entry: Registered[Transform]
    options: Options
    code: Code


def check_weights(model: nn.Module, plans: Sequence[LayerPlan]) -> None:
    """Refuse weights that are not finite before any work is done.

    Raises:
        VqzooError: names the first such layer.
    """
    for plan in plans:
        weight = model.get_parameter(weight_key(plan.layer.name))
        if not weight.numel():
            raise VqzooError(f"layer {plan.layer.name} has no weights")
        if not all_finite(weight):
            bad = weight.numel() - int(torch.isfinite(weight).sum())
            raise VqzooError(
                f"layer {plan.layer.name} has {bad} NaN or infinite weights: "
                "mend the checkpoint, or exclude the layer with --layers '!" + plan.layer.name + "'"
            )


def compress_layer(
    model: nn.Module,
    plan: LayerPlan,
    plugins: Plugins,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    inputs: Tensor | None = None,
) -> CompressedLayer:
    """Compress one layer.

    `inputs` are `LayerContext.inputs`, by which methods may weigh errors. A transform's matrix has
    other columns than the layer: behind it they count alike.

    Raises:
        SkipLayer: it stays dense; the message says why.
        UsageError: the options are not the method's.
        PluginError: the plugin failed or broke its contract.
    """
    layer, choice = plan.layer, plan.choice
    notes: list[str] = []

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            progress.note(layer.name, text)

    context = layer_context(
        plugins, layer, seed=seed, device=device, note=note, progress=progress.layer_step
    )
    if inputs is not None and choice.transforms:
        note("calibration does not reach through a transform")
    elif inputs is not None:
        context = replace(context, inputs=inputs.to(device))
    entry = plugins.quantizers.get(choice.method)
    weight = matrix = weight_matrix(model, layer, device)
    transformed: list[_Undone] = []
    for step in choice.transforms:
        transform = plugins.transforms.get(step.name)
        given = parse_options(transform.item, step.options)
        matrix, code = transform_matrix(transform, matrix, given, context)
        transformed.append(_Undone(transform, given, code))
    who = on_layer(entry, layer.name)
    with isolated(who):
        options = choose_options(entry.item, _shape(matrix), choice, note)
        check_options(options, entry.item, who)
        paper_bits = entry.item.paper_bits(*_shape(matrix), options)
        steered = any(True for _ in entry.item.candidates(*_shape(matrix)))
    check_paper_bits(paper_bits, who)
    compressed = quantize_matrix(plugins, entry, matrix, options, context)
    for undone in reversed(transformed):
        compressed = wrap(plugins, undone.entry, undone.code, compressed, context)

    bits, dense_bits = stored_bits(compressed.code), 32 * layer.numel
    if bits >= dense_bits:
        raise SkipLayer(f"{choice.method} would not make it smaller ({bits} of {dense_bits} bits)")
    ratio = wanted_ratio(choice)
    if ratio is not None and steered and bits * ratio > dense_bits:
        reached = math.floor(1e4 * dense_bits / bits) / 1e4  # never rounded up to what was asked
        note(f"{choice.method} reaches {reached:g}x here, not {ratio:g}x")
    decoded = _decode(compressed, plugins, layer.name)
    return CompressedLayer(
        layer=layer,
        compressed=compressed,
        options=options.model_dump(),
        error=matrix_error(weight, decoded),
        paper_bits=paper_bits,
        transforms=tuple(
            TransformChoice(undone.entry.name, undone.options.model_dump())
            for undone in transformed
        ),
        notes=tuple(notes),
    )


def layer_context(
    plugins: Plugins,
    layer: LayerInfo,
    *,
    seed: int,
    device: torch.device,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> LayerContext:
    """What a method is told of a layer; `seed` is the run's."""

    def quantize_child(name: str, matrix: Tensor, given: Mapping[str, Any]) -> MethodCode:
        entry = plugins.quantizers.get(name)
        options = parse_options(entry.item, given)
        with isolated(on_layer(entry, layer.name)):
            fitted = entry.item.fit(*_shape(matrix), options, note)
        return quantize_matrix(plugins, entry, matrix.contiguous(), fitted, context)

    context = LayerContext(
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
    return context


def choose_options(
    quantizer: Quantizer, shape: tuple[int, int], choice: MethodChoice, note: Any
) -> Any:
    """The options for a matrix: as given, or chosen for a ratio (16 where nothing was asked).

    Raises:
        UsageError: an option is unknown or out of bounds, or the method takes no ratio.
        SkipLayer: nothing fits this shape.
    """
    given = parse_options(quantizer, choice.options)
    ratio = wanted_ratio(choice)
    if ratio is None:
        return quantizer.fit(*shape, given, note)
    fixed = {name: getattr(given, name) for name in choice.options}
    chosen = quantizer.options_for(*shape, ratio, fixed)
    if chosen is not None:
        for name, value in fixed.items():
            if getattr(chosen, name) != value:
                note(f"{name}={value} does not fit here: {name}={getattr(chosen, name)}")
        return chosen
    if choice.ratio is not None:
        asked = " that go with " + ", ".join(choice.options) if choice.options else ""
        raise SkipLayer(f"{quantizer.name} has no options for {ratio:g}x{asked} here")
    return quantizer.fit(*shape, given, note)


def wanted_ratio(choice: MethodChoice) -> float | None:
    """The ratio to choose options for: 16 where nothing was asked, None where only options were."""
    if choice.ratio is None and not choice.options:
        return DEFAULT_RATIO
    return choice.ratio


def parse_options(method: Method, given: Mapping[str, Any]) -> Options:
    """Validate options.

    Raises:
        UsageError: one line that names the option and lists those there are.
    """
    try:
        return method.Options(**given)
    except ValidationError as error:
        field = invalid_field(error)
        name = field.name or "options"
        if field.unknown:
            known = ", ".join(method.Options.model_fields) or "none"
            raise UsageError(f"{method.name} has no option {name!r}; it has: {known}") from None
        raise UsageError(
            f"{method.name}: option {name}={field.value!r}: {field.reason} "
            f"(see `vqzoo methods {method.name}`)"
        ) from None
    except Exception as error:
        raise PluginError(f"the Options of {method.name} failed: {cause(error)}") from error


def layer_seed(seed: int, name: str) -> int:
    """A seed for one layer, the same whatever other layers are compressed before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "little")


def transform_matrix(
    entry: Registered[Transform], matrix: Tensor, options: Any, context: LayerContext
) -> tuple[Tensor, Code]:
    """Run one transform.

    Returns:
        The matrix to quantize (contiguous), and the Code that `wrap` completes.

    Raises:
        SkipLayer: it cannot take this matrix.
        PluginError: it failed, or returned something else than a matrix that a quantizer can take
            and a Code of the shape of `matrix`.
    """
    who = on_layer(entry, context.layer)
    check_matrix(matrix, f"what {who} is to transform")
    check_options(options, entry.item, who)
    with isolated(who):
        made = entry.item.forward(matrix, options, context)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise PluginError(f"{who} did not return a matrix and a Code")
    changed, code = made
    check_matrix(changed, f"the matrix that {who} made")
    check_shape(code, _shape(matrix), who)
    return changed.contiguous(), code


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


def _decode(compressed: MethodCode, plugins: Plugins, layer: str) -> Tensor:
    """Decode a code that was just made; what goes wrong is told as its plugin's.

    Raises:
        PluginError: a method failed, or gave what cannot be a matrix of its code's shape.
    """
    code = compressed.code
    params = code.floats()
    for name, child in code.children.items():
        params[name] = _decode(child, plugins, layer)
    entry = plugins.method(compressed.method)
    who = on_layer(entry, layer)
    with isolated(who):
        decoded = entry.item.decode(code, params)
    check_decoded(decoded, code.shape, who)
    return decoded


def quantize_matrix(
    plugins: Plugins,
    entry: Registered[Quantizer],
    matrix: Tensor,
    options: Any,
    context: LayerContext,
) -> MethodCode:
    """Call a quantizer with options that fit, and check what it returns.

    Raises:
        SkipLayer: it cannot compress this matrix.
        PluginError: it failed or broke its contract.
    """
    who = on_layer(entry, context.layer)
    check_matrix(matrix, f"what {who} is to quantize")
    with isolated(who):
        code = entry.item.quantize(matrix, options, context)
        check_code(code, _shape(matrix), entry.item, who)
    return MethodCode(plugins.method_name(entry), _as_stored(code))


def _as_stored(code: Code) -> Code:
    """Parts as reading gives them: what is measured is, to the last bit, what will be loaded."""
    parts = {name: part.as_read() for name, part in code.parts.items()}
    return replace(code, parts=parts)


def _shape(matrix: Tensor) -> tuple[int, int]:
    """(m, n) of a matrix."""
    m, n = matrix.shape
    return m, n
