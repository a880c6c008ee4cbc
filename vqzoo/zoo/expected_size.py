"""The size of an artifact, computed without its weights."""

from dataclasses import dataclass

from torch import Tensor, nn

from vqzoo.artifact.encode import FIXED_WIDTH, EncodedLayer, encode_layout
from vqzoo.artifact.file_size import artifact_bytes
from vqzoo.compression.options import choose_options
from vqzoo.compression.selection import LayerPlan, plan_layers
from vqzoo.compression.view import compressible_layers, weight_key
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.models.arguments import required_features
from vqzoo.models.create import create_on_meta
from vqzoo.models.names import check_name
from vqzoo.models.registration import register_models
from vqzoo.models.timm_config import timm_config
from vqzoo.plugin.code import Code, MethodCode
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import Options, SkipLayer
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.selector import LayerInfo
from vqzoo.runs.recipe import Recipe


class SizeUnknownError(VqzooError):
    """The size of a recipe's artifact depends on its weights."""


@dataclass(frozen=True)
class ExpectedSize:
    """The size of an artifact in bytes: exact, or an upper bound.

    Attributes:
        layers: the number of compressed weights.
        dense_layers: bytes of those weights in fp32.
        compressed: bytes of their codes, codebooks and scales.
        rest: bytes of everything that stays dense, buffers included.
        file: bytes of `vqzoo.safetensors`, header included.
        exact: False for a packing whose stream length depends on the codes; the sizes are then
            those of fixed width, which a stream never exceeds.
    """

    layers: int
    dense_layers: int
    compressed: int
    rest: int
    file: int
    exact: bool


def expected_size(recipe: Recipe, plugins: Plugins) -> ExpectedSize:
    """Plan a recipe on a model without weights, and count the bytes.

    Raises:
        UsageError: the recipe names something that does not exist.
        SizeUnknownError: the size depends on the weights: the recipe has a budget, the layout
            compact, transforms, or a
            method without a layout.
        PluginError: a method failed.
    """
    if recipe.size is not None:
        raise SizeUnknownError(f"at most {recipe.size}, and within 1% of it where possible")
    if recipe.budget is not None:
        raise SizeUnknownError(f"{recipe.budget} chooses it by the weights")
    if recipe.file_layout == "compact":
        raise SizeUnknownError("the weights decide how far the header of --layout compact shrinks")
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
    numel = {weight_key(plan.layer.name): plan.layer.numel for plan in plans}
    return ExpectedSize(
        layers=len(compressed),
        dense_layers=4 * sum(numel[key] for key in compressed),
        compressed=sum(layer.nbytes for layer in compressed.values()),
        rest=sum(tensor.numel() * tensor.element_size() for tensor in dense.values()),
        file=artifact_bytes(
            dense,
            aliases,
            list(compressed.values()),
            required_features(timm_config(model, pretrained=False)),
        ),
        exact=all(_is_fixed_width(plan, recipe.packing, plugins) for plan in plans),
    )


def _model_without_weights(recipe: Recipe) -> nn.Module:
    check_name(recipe.model)
    try:
        return create_on_meta(recipe.model, recipe.model_args)
    except (TypeError, RuntimeError, OSError) as error:
        raise UsageError(f"cannot create model {recipe.model}: {one_line(error)}") from error


def _untouched(model: nn.Module, replaced: set[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The writer's `untouched_tensors` on the meta device, where aliases are the same object."""
    state = model.state_dict(keep_vars=True)
    first_keys = {id(state[key]): key for key in state if key in replaced}
    dense: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for key, tensor in state.items():
        owner = first_keys.setdefault(id(tensor), key)
        if owner != key:
            aliases[key] = owner
        elif key not in replaced:
            dense[key] = tensor
    return dense, aliases


def _is_fixed_width(plan: LayerPlan, packing: str | None, plugins: Plugins) -> bool:
    name = packing or plugins.quantizers.get(plan.choice.method).item.packing
    return plugins.packings.get(name).name == FIXED_WIDTH


def _layer(plan: LayerPlan, packing: str | None, plugins: Plugins) -> EncodedLayer | None:
    """The stored form of a weight, without values; None where the weight stays dense."""
    layer, choice = plan.layer, plan.choice
    if choice.transforms:
        names = ", ".join(transform.name for transform in choice.transforms)
        raise SizeUnknownError(
            f"{layer.name}: what {names} leaves to {choice.method} depends on the weights"
        )
    entry = plugins.quantizers.get(choice.method)
    try:
        with isolated(on_layer(entry, layer.name)):
            options = choose_options(entry.item, layer.matrix_shape, choice, lambda text: None)
            encoded = encode_layout(
                weight_key(layer.name),
                layer.shape,
                MethodCode(choice.method, _layout(entry.item, layer, options)),
                options.model_dump(),
                packing,
                plugins,
            )
    except SkipLayer:
        return None
    return encoded if encoded.nbytes < 4 * layer.numel else None


def _layout(quantizer: Quantizer, layer: LayerInfo, options: Options) -> Code:
    try:
        return quantizer.layout(*layer.matrix_shape, options)
    except NotImplementedError as error:
        raise SizeUnknownError(f"{layer.name}: {error}") from None
