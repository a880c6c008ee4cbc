"""How large an artifact will be, before there are weights."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from vqzoo.artifact.writer import fp32_itemsize
from vqzoo.compression.compress import choose_options
from vqzoo.compression.selection import LayerPlan, plan_layers
from vqzoo.compression.view import compressible_layers, weight_key
from vqzoo.errors import UsageError, one_line
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import SkipLayer
from vqzoo.zoo.names import check_name, register_models
from vqzoo.zoo.recipe import Recipe


@dataclass(frozen=True)
class ExpectedSize:
    """Bytes of an artifact's tensors, to the byte; the file's header comes on top.

    Attributes:
        layers: weights that are compressed.
        dense_layers: those weights in fp32.
        compressed: their codes, codebooks and scales.
        rest: what stays dense, buffers included.
    """

    layers: int
    dense_layers: int
    compressed: int
    rest: int

    @property
    def tensors(self) -> int:
        """All of it."""
        return self.compressed + self.rest


def expected_size(recipe: Recipe, plugins: Plugins) -> ExpectedSize:
    """Plan a recipe on a model without weights and count.

    Raises:
        UsageError: the recipe names what does not exist, or a transform or a method that cannot
            say its size beforehand.
    """
    register_models(plugins)
    model = _model_without_weights(recipe)
    layers, _ = compressible_layers(model)
    rules = [(rule.layers, rule.choice()) for rule in recipe.rules]
    plans, _ = plan_layers(layers, recipe.layers, recipe.choice(), rules, plugins)
    sizes = {weight_key(plan.layer.name): _bits(plan, plugins) // 8 for plan in plans}
    smaller = {
        weight_key(plan.layer.name): plan.layer.numel
        for plan in plans
        if sizes[weight_key(plan.layer.name)] < 4 * plan.layer.numel
    }
    seen: set[int] = set()
    rest = 0
    for key, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and key not in smaller:
            rest += tensor.numel() * fp32_itemsize(tensor)
        seen.add(id(tensor))
    return ExpectedSize(
        layers=len(smaller),
        dense_layers=4 * sum(smaller.values()),
        compressed=sum(sizes[key] for key in smaller),
        rest=rest,
    )


def _model_without_weights(recipe: Recipe) -> nn.Module:
    check_name(recipe.model)
    arguments: dict[str, Any] = dict(recipe.model_args)
    try:
        with torch.device("meta"):
            return timm.create_model(recipe.model, pretrained=False, **arguments)
    except (TypeError, RuntimeError, OSError) as error:
        raise UsageError(f"{recipe.model} cannot be made: {one_line(error)}") from error


def _bits(plan: LayerPlan, plugins: Plugins) -> int:
    layer, choice = plan.layer, plan.choice
    if choice.transforms:
        raise UsageError(f"{layer.name}: sizes with transforms are not known beforehand")
    quantizer = plugins.quantizers.get(choice.method).item
    try:
        options = choose_options(quantizer, layer.matrix_shape, choice, lambda text: None)
        return quantizer.stored_bits(*layer.matrix_shape, options)
    except SkipLayer:
        return 32 * layer.numel
    except NotImplementedError as error:
        raise UsageError(f"{layer.name}: {error}") from None
