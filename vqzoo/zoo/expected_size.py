"""How large an artifact will be, before there are weights."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vqzoo.artifact.encode import FIXED_WIDTH, EncodedLayer, encode_layout
from vqzoo.artifact.writer import file_bytes, metadata_text
from vqzoo.compression.options import choose_options
from vqzoo.compression.selection import LayerPlan, plan_layers
from vqzoo.compression.view import compressible_layers, weight_key
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.models.names import check_name, register_models
from vqzoo.plugin.code import Code, MethodCode
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import Options, SkipLayer
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.selector import LayerInfo
from vqzoo.runs.recipe import Recipe

_SHA256 = "0" * 64  # any other is as long


class SizeUnknownError(VqzooError):
    """A recipe's artifact has a size that only its weights can tell."""


@dataclass(frozen=True)
class ExpectedSize:
    """Bytes of an artifact, to the byte, or at most so many.

    Attributes:
        layers: weights that are compressed.
        dense_layers: those weights in fp32.
        compressed: their codes, codebooks and scales.
        rest: what stays dense, buffers included.
        file: `vqzoo.safetensors`, its header included.
        exact: False for a packing whose streams are as long as the codes make them, which is at
            most the fixed width.
    """

    layers: int
    dense_layers: int
    compressed: int
    rest: int
    file: int
    exact: bool


def expected_size(recipe: Recipe, plugins: Plugins) -> ExpectedSize:
    """Plan a recipe on a model without weights and count.

    Raises:
        UsageError: the recipe names what does not exist.
        SizeUnknownError: it asks for transforms, or for a method that cannot say beforehand what it
            stores.
        PluginError: a method failed.
    """
    register_models(plugins)
    model = _model_without_weights(recipe)
    layers, _ = compressible_layers(model)
    rules = [(rule.layers, rule.choice()) for rule in recipe.rules]
    plans, _ = plan_layers(layers, recipe.layers, recipe.choice(), rules, plugins)
    expected = {
        weight_key(plan.layer.name): _layer(plan, recipe.packing, plugins) for plan in plans
    }
    compressed = {key: layer for key, layer in expected.items() if layer is not None}
    dense, aliases = _untouched(model, set(compressed))
    tensors = dict(dense)
    for layer in compressed.values():
        tensors |= layer.tensors
    metadata = metadata_text(list(compressed.values()), aliases, _SHA256, _SHA256)
    numel = {weight_key(plan.layer.name): plan.layer.numel for plan in plans}
    return ExpectedSize(
        layers=len(compressed),
        dense_layers=4 * sum(numel[key] for key in compressed),
        compressed=sum(layer.nbytes for layer in compressed.values()),
        rest=sum(tensor.numel() * tensor.element_size() for tensor in dense.values()),
        file=file_bytes(tensors, {"vqzoo": metadata}),
        exact=plugins.packings.get(recipe.packing).name == FIXED_WIDTH,
    )


def _model_without_weights(recipe: Recipe) -> nn.Module:
    check_name(recipe.model)
    arguments: dict[str, Any] = dict(recipe.model_args)
    try:
        with torch.device("meta"):
            return timm.create_model(recipe.model, pretrained=False, **arguments)
    except (TypeError, RuntimeError, OSError) as error:
        raise UsageError(f"{recipe.model} cannot be made: {one_line(error)}") from error


def _untouched(model: nn.Module, replaced: set[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As the writer's `untouched_tensors`; on the meta device an object is its own place."""
    state = model.state_dict(keep_vars=True)
    first = {id(state[key]): key for key in state if key in replaced}
    dense: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for key, tensor in state.items():
        owner = first.setdefault(id(tensor), key)
        if owner != key:
            aliases[key] = owner
        elif key not in replaced:
            dense[key] = tensor
    return dense, aliases


def _layer(plan: LayerPlan, packing: str, plugins: Plugins) -> EncodedLayer | None:
    """What a weight will be stored as; None where it stays dense."""
    layer, choice = plan.layer, plan.choice
    if choice.transforms:
        names = ", ".join(transform.name for transform in choice.transforms)
        raise SizeUnknownError(f"{layer.name}: what {names} leaves to {choice.method} is not known")
    entry = plugins.quantizers.get(choice.method)
    try:
        with isolated(on_layer(entry, layer.name)):
            options = choose_options(entry.item, layer.matrix_shape, choice, lambda text: None)
            found = encode_layout(
                weight_key(layer.name),
                layer.shape,
                MethodCode(choice.method, _layout(entry.item, layer, options)),
                options.model_dump(),
                packing,
                plugins,
            )
    except SkipLayer:
        return None
    return found if found.nbytes < 4 * layer.numel else None


def _layout(quantizer: Quantizer, layer: LayerInfo, options: Options) -> Code:
    try:
        return quantizer.layout(*layer.matrix_shape, options)
    except NotImplementedError as error:
        raise SizeUnknownError(f"{layer.name}: {error}") from None
