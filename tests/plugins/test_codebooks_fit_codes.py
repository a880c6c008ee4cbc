"""pq and rq with second-order statistics: codebooks have the least loss for the codes chosen."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vqzoo_vq.pq import ProductQuantization
from vqzoo_vq.rq import ResidualQuantization

from vqzoo.compression.layer import compress_layer
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import compressible_layers
from vqzoo.compression.work import LayerInput
from vqzoo.numerics.feedback.layer import DAMPING, even_weights, times_hessian
from vqzoo.plugin import Code, SecondOrder
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentProgress

PLUGINS = installed_plugins()
METHODS = {"pq": ProductQuantization(), "rq": ResidualQuantization()}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("pq", {"k": 8, "d": 5}),
    ("pq", {"k": 4, "d": 5, "codebook": "block"}),
    ("pq", {"k": 8, "d": 5, "axis": "rows"}),
    ("pq", {"k": 4, "d": 5, "axis": "rows", "codebook": "block"}),
    ("rq", {"k": 4, "d": 5}),
    ("rq", {"k": 4, "d": 5, "codebook": "block"}),
]


def statistics(m: int, n: int, groups: int) -> SecondOrder:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(groups, n, n, generator=generator) * torch.logspace(0, -1, n)
    return SecondOrder((mixing @ mixing.mT / n,), torch.rand(m, generator=generator) + 0.1)


def cost(error: Tensor, known: SecondOrder) -> Tensor:
    """The loss of an error with H damped as error feedback damps it."""
    groups = len(known.hessian[0])
    ridge = DAMPING * known.hessian[0].diagonal(dim1=1, dim2=2).mean(1)
    damped = times_hessian(error, known.hessian) + (
        ridge.repeat_interleave(len(error) // groups)[:, None] * error
    )
    return ((damped * error).sum(1) * even_weights(known.row_weights)).sum()


def quantized(method: str, options: dict[str, Any], layer: nn.Module, known: SecondOrder) -> Code:
    chosen = MethodChoice(method, {**options, "scale": "none", "dtype": "float32"})
    plan = LayerPlan(compressible_layers(layer)[0][0], chosen)
    given = LayerInput(plan, layer.weight, Statistics(second_order=known), SilentProgress())
    compressed, _ = compress_layer(given, plugins=PLUGINS, seed=0, device=torch.device("cpu"))
    return compressed.compressed.code


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_no_step_down_the_gradient_pays(method: str, options: dict[str, Any], groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv1d(42 * groups, 48, 1, groups=groups)
    weight = layer.weight.detach().flatten(1)
    known = statistics(48, 42, groups)
    code = quantized(method, options, layer, known)
    params = {name: part.requires_grad_() for name, part in code.floats().items()}
    decoded = METHODS[method].reconstruct(code, params)
    loss = cost(weight - decoded, known)
    gradients = torch.autograd.grad(loss, list(params.values()))
    step = METHODS[method].reconstruct(code, dict(zip(params, gradients, strict=True)))
    slope = sum(float(part.square().sum()) for part in gradients)
    decrease = slope**2 / (4 * float(cost(step, known)))
    assert decrease < 3e-3 * float(loss.detach())
