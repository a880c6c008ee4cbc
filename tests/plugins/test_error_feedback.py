"""Methods with second-order statistics: smaller losses in files of the same size."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqzoo.compression.layer import CompressedLayer, compress_layer
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import compressible_layers
from vqzoo.compression.work import LayerInput
from vqzoo.numerics.feedback.layer import feedback_loss
from vqzoo.plugin.code import stored_bits
from vqzoo.plugin.manager import installed_plugins
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.progress import SilentProgress

PLUGINS = installed_plugins()
LAYERS = {
    "linear": lambda: nn.Linear(70, 48),
    "grouped": lambda: nn.Conv2d(16, 32, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(64, 64, 3, groups=64),
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("km", {"k": 4}),
    ("km", {"k": 4, "scale": "none"}),
    ("pq", {"k": 8, "d": 4}),
    ("pq", {"k": 4, "d": 4, "codebook": "block"}),
    ("pq", {"k": 8, "d": 5, "scale": "none"}),
    ("pq", {"k": 8, "d": 5, "axis": "rows"}),
    ("pq", {"k": 4, "d": 4, "axis": "rows", "codebook": "block"}),
    ("rq", {"k": 4, "d": 4}),
    ("rq", {"k": 4, "d": 5, "codebook": "block", "scale": "none"}),
    ("rtn", {"format": "int3"}),
    ("rtn", {"format": "int3", "per": "tensor"}),
    ("rtn", {"format": "int3", "per": "group", "group": 32}),
    ("binary", {}),
    ("binary", {"scale": "tensor"}),
    ("deep-compression", {"density": 0.4, "bits": 3}),
]


def layer_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[kind]()


def statistics_of(layer: nn.Module, cuts: tuple[int, ...] = ()) -> SecondOrder:
    """Strongly correlated inputs of very different sizes, H cut at some columns."""
    info = compressible_layers(layer)[0][0]
    (m, n), groups = info.matrix_shape, info.groups
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(groups, n, n, generator=generator) * torch.logspace(0, -1.5, n)
    hessian = mixing @ mixing.mT / n
    borders = [0, *cuts, n]
    blocks = [hessian[:, a:b, a:b].contiguous() for a, b in pairwise(borders)]
    return SecondOrder(tuple(blocks), torch.rand(m, generator=generator) + 0.1)


def compressed(
    layer: nn.Module, method: str, options: dict[str, Any], statistics: SecondOrder | None
) -> tuple[CompressedLayer, Tensor]:
    plan = LayerPlan(compressible_layers(layer)[0][0], MethodChoice(method, options))
    known = Statistics(second_order=statistics)
    given = LayerInput(plan, layer.get_parameter("weight"), known, SilentProgress())
    return compress_layer(given, plugins=PLUGINS, seed=0, device=torch.device("cpu"))


def loss(layer: nn.Module, decoded: Tensor, statistics: SecondOrder) -> float:
    error = layer.get_parameter("weight").detach().flatten(1) - decoded
    return feedback_loss(error, statistics.hessian, statistics.row_weights)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("method", "options"), CASES)
def test_the_loss_falls_at_the_same_size(kind: str, method: str, options: dict[str, Any]) -> None:
    layer = layer_of(kind)
    weight = layer.get_parameter("weight").detach().clone()
    statistics = statistics_of(layer)
    plain, decoded = compressed(layer, method, options, None)
    better, fed_back = compressed(layer, method, options, statistics)
    again, repeated = compressed(layer, method, options, statistics)
    assert loss(layer, fed_back, statistics) < 0.9 * loss(layer, decoded, statistics)
    assert stored_bits(better.compressed.code) == stored_bits(plain.compressed.code)
    assert torch.equal(layer.get_parameter("weight"), weight)
    assert torch.equal(fed_back, repeated)
    assert better.options == again.options


@pytest.mark.parametrize(("method", "options"), CASES)
def test_blocks_of_the_hessian_need_not_fit_sub_vectors(
    method: str, options: dict[str, Any]
) -> None:
    layer = layer_of("linear")
    whole = statistics_of(layer)
    _, decoded = compressed(layer, method, options, None)
    _, fed_back = compressed(layer, method, options, statistics_of(layer, (34,)))
    assert loss(layer, fed_back, whole) < loss(layer, decoded, whole)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_channels_that_saw_nothing_do_no_harm(method: str, options: dict[str, Any]) -> None:
    layer = layer_of("depthwise")
    seen = statistics_of(layer)
    hessian = seen.hessian[0].clone()
    hessian[:32] = 0
    half = SecondOrder((hessian,), seen.row_weights)
    _, decoded = compressed(layer, method, options, None)
    _, fed_back = compressed(layer, method, options, half)
    assert fed_back.isfinite().all()
    assert loss(layer, fed_back, half) < loss(layer, decoded, half)
    nothing = SecondOrder((torch.zeros_like(hessian),), torch.ones(64))
    _, blind = compressed(layer, method, options, nothing)
    assert blind.isfinite().all()
