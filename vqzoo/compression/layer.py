"""Compress one layer: choose options, transform, quantize, decode, measure the error."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqzoo.compression.check import check_code_count, check_options, check_paper_bits
from vqzoo.compression.extremes import (
    check_kept,
    check_range,
    extremes_stay_dense,
    squares_overflow,
)
from vqzoo.compression.measures.distortion import MatrixError, matrix_error
from vqzoo.compression.options import choose_options, target_ratio, validate_options
from vqzoo.compression.plugin_calls import (
    decode_new,
    layer_context,
    matrix_shape,
    quantize_matrix,
    transform_matrix,
    wrap,
)
from vqzoo.compression.selection import TransformChoice
from vqzoo.compression.view import weight_matrix
from vqzoo.compression.work import LayerInput
from vqzoo.plugin.code import Code, MethodCode, stored_bits
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import LayerContext, Options, SkipLayer
from vqzoo.plugin.registry import Registered
from vqzoo.plugin.selector import LayerInfo
from vqzoo.plugin.transform import Transform


@dataclass(frozen=True)
class CompressedLayer:
    """One compressed layer.

    Attributes:
        layer: name, kind and shape.
        compressed: the code.
        options: the method's options as used, defaults and clamped values included.
        error: of the decoded matrix, storage rounding included.
        paper_bits: bits by the source's own formula, None where it has none.
        transforms: the transforms that ran before the method, in order, with their options as used.
        notes: lines that the user should see.
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
class _AppliedTransform:
    """A transform that ran, its options as used, and the Code that undoes it."""

    entry: Registered[Transform]
    options: Options
    code: Code


def compress_layer(
    layer: LayerInput,
    *,
    plugins: Plugins,
    seed: int,
    device: torch.device,
) -> tuple[CompressedLayer, Tensor]:
    """Compress one layer.

    Args:
        layer: the layer; its weight is not changed. Methods may weight errors by its statistics. A
            transform changes the columns: behind one, all columns count alike.
        plugins: the installed methods.
        seed: the run's.
        device: where to compute.

    Returns:
        The compressed layer, and its decoded matrix, (m, n) float32 on `device`.

    Raises:
        SkipLayer: the layer stays dense; the message says why.
        UsageError: the method does not take these options.
        PluginError: the plugin failed or broke its contract.
    """
    info, choice, statistics = layer.plan.layer, layer.plan.choice, layer.statistics
    notes: list[str] = []

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            layer.progress.note(info.name, text)

    if statistics is not None and choice.transforms:
        note("calibration does not reach through a transform")
        statistics = None
    inputs = None if statistics is None else statistics.inputs
    if inputs is not None and squares_overflow(inputs):
        note("its calibration inputs are too large to be squared: all columns count alike")
        statistics = None
    context = layer_context(
        plugins,
        info,
        seed=seed,
        device=device,
        note=note,
        progress=layer.progress.layer_step,
        statistics=statistics,
    )
    weight = weight_matrix(layer.weight, info, device)
    check_range(layer.weight, weight)
    with extremes_stay_dense(weight):
        matrix, applied = _apply_transforms(plugins, choice.transforms, weight, context)
        entry = plugins.quantizers.get(choice.method)
        who = on_layer(entry, info.name)
        with isolated(who):
            options = choose_options(entry.item, matrix_shape(matrix), choice, note)
            check_options(options, entry.item, who)
            paper_bits = entry.item.paper_bits(*matrix_shape(matrix), options)
            takes_ratio = any(True for _ in entry.item.candidates(*matrix_shape(matrix)))
        check_paper_bits(paper_bits, who)
        compressed = quantize_matrix(plugins, entry, matrix, options, context)
        del matrix
        for transform in reversed(applied):
            compressed = wrap(plugins, transform.entry, transform.code, compressed, context)
        check_code_count(compressed.code, info.numel, who)

    bits, dense_bits = stored_bits(compressed.code), 32 * info.numel
    if bits >= dense_bits:
        raise SkipLayer(f"{choice.method} would not make it smaller ({bits} of {dense_bits} bits)")
    ratio = target_ratio(choice)
    if ratio is not None and takes_ratio and bits * ratio > dense_bits:
        reached = math.floor(1e4 * dense_bits / bits) / 1e4  # never rounded up to the target
        note(f"{choice.method} reaches {reached:g}x here, not {ratio:g}x")
    with extremes_stay_dense(weight):
        decoded = decode_new(compressed, plugins, info.name)
    error = matrix_error(weight, decoded)
    check_kept(weight, decoded, error, layer.weight.dtype, choice.method)
    compressed_layer = CompressedLayer(
        layer=info,
        compressed=compressed,
        options=options.model_dump(),
        error=error,
        paper_bits=paper_bits,
        transforms=tuple(
            TransformChoice(transform.entry.name, transform.options.model_dump())
            for transform in applied
        ),
        notes=tuple(notes),
    )
    return compressed_layer, decoded


def _apply_transforms(
    plugins: Plugins,
    choices: tuple[TransformChoice, ...],
    matrix: Tensor,
    context: LayerContext,
) -> tuple[Tensor, list[_AppliedTransform]]:
    """Run transforms one after the other; the last one's matrix, and what undoes each."""
    applied: list[_AppliedTransform] = []
    for choice in choices:
        entry = plugins.transforms.get(choice.name)
        options = validate_options(entry.item, choice.options)
        matrix, code = transform_matrix(entry, matrix, options, context)
        applied.append(_AppliedTransform(entry, options, code))
    return matrix, applied
