"""ecq of the cosine transforms of kernels: the transform, and when it is taken."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from quantizing import layer_context
from torch import Tensor

from vqzoo.artifact.encode import encode_layer
from vqzoo.compression.options import validate_options
from vqzoo.plugin import Code, LayerContext, MethodCode, SecondOrder
from vqzoo.plugin.manager import installed_plugins

PLUGINS = installed_plugins()
ECQ = PLUGINS.quantizers.get("ecq").item
KERNELS = [(24, 4, 5), (24, 4, 3, 5), (24, 1, 7, 7), (12, 4, 2, 3, 3)]  # conv1d, two conv2d, conv3d


def weights(shape: tuple[int, ...]) -> Tensor:
    """Kernels whose neighbouring taps are alike."""
    noise = np.random.default_rng(0).normal(size=shape)
    taps = tuple(range(2, len(shape)))
    smooth = (
        noise if not taps else scipy.fft.idctn(_falling(shape) * noise, axes=taps, norm="ortho")
    )
    return torch.from_numpy(smooth).float().flatten(1).contiguous() * 0.05


def _falling(shape: tuple[int, ...]) -> np.ndarray:
    frequencies = np.indices(shape)[2:].sum(0)
    return np.exp(-frequencies.astype(float))


def context(shape: tuple[int, ...], known: SecondOrder | None = None) -> LayerContext:
    kind = "linear" if len(shape) == 2 else f"conv{len(shape) - 2}d"
    flat = shape[0], math.prod(shape[1:])
    return replace(layer_context(flat), kind=kind, shape=shape, second_order=known)


def quantize(weight: Tensor, where: LayerContext, **options: Any) -> Code:
    code = ECQ.quantize(weight, validate_options(ECQ, {"price": 1e-4, **options}), where)
    ECQ.check(code)
    return code


def decoded(code: Code) -> Tensor:
    return ECQ.decode(code, code.floats())


def cost(code: Code, weight: Tensor, price: float) -> float:
    """Loss + price · bits where H = I and losing the whole matrix costs 100."""
    error = (decoded(code) - weight).double().square().sum() / weight.double().square().sum()
    stored = encode_layer(
        "w", code.shape, torch.float32, MethodCode("ecq", code), {}, None, PLUGINS
    )
    return 100 * float(error) + price * 8 * stored.nbytes


@pytest.mark.parametrize("shape", KERNELS, ids=str)
@pytest.mark.parametrize("trellis", [True, False])
def test_kernels_are_inverse_cosine_transforms_of_the_grid(
    shape: tuple[int, ...], trellis: bool
) -> None:
    weight = weights(shape)
    code = quantize(weight, context(shape), transform="cosine", trellis=trellis)
    assert code.facts["kernel"] == "x".join(map(str, shape[2:]))
    plain = {name: value for name, value in code.facts.items() if name != "kernel"}
    grid = decoded(replace(code, facts=plain)).double().numpy().reshape(shape)
    expected = scipy.fft.idctn(grid, axes=tuple(range(2, len(shape))), norm="ortho")
    assert np.allclose(decoded(code), expected.reshape(weight.shape), atol=1e-6)
    assert torch.allclose(ECQ.reconstruct(code, code.floats()), decoded(code), atol=1e-6)
    assert (decoded(code) - weight).square().sum() < 0.05 * weight.square().sum()


@pytest.mark.parametrize("shape", [(24, 4, 3, 5), (96, 64, 3, 3)], ids=str)
def test_smooth_kernels_are_transformed_and_rough_ones_are_not(shape: tuple[int, ...]) -> None:
    smooth = weights(shape)
    rough = weights((shape[0], math.prod(shape[1:])))
    rough[:, :: math.prod(shape[2:])] *= 9  # one tap of each kernel has most of its energy
    for weight, better in ((smooth, "cosine"), (rough, "none")):
        code, *both = [
            quantize(weight, context(shape), transform=transform, price=1e-3)
            for transform in ("auto", "cosine", "none")
        ]
        costs = [cost(one, weight, 1e-3) for one in (code, *both)]
        assert costs[0] == min(costs)
        assert ("kernel" in code.facts) == (better == "cosine")
        assert max(costs) > 1.05 * min(costs)


def test_statistics_are_transformed_like_the_inputs() -> None:
    """The codes are those of a plain layer whose weights and inputs scipy has transformed."""
    shape = (40, 8, 3, 3)
    weight = weights((40, 72))
    x = torch.randn(2, 300, 72, generator=torch.Generator().manual_seed(1)).cumsum(2).double()
    g = torch.linspace(0.5, 2, 40)

    def moments(inputs: Tensor) -> SecondOrder:
        return SecondOrder(((inputs.mT @ inputs / 300).float(),), g)

    def scipys(rows: Tensor) -> Tensor:
        kernels = rows.double().unflatten(-1, (8, 3, 3)).numpy()
        waves = scipy.fft.dctn(kernels, axes=(-2, -1), norm="ortho")
        return torch.from_numpy(waves).flatten(-3)

    code = quantize(weight, context(shape, moments(x)), transform="cosine", price=1e-4)
    plain = quantize(scipys(weight).float(), context((40, 72), moments(scipys(x))), price=1e-4)
    codes, expected = code.indices("codes"), plain.indices("codes")
    assert codes.unique().numel() > 5
    assert (codes == expected).double().mean() > 0.99


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((24, 36), None), ((24, 36, 1, 1), None), ((24, 4, 3, 3), (30, 6))],
    ids=["linear", "pointwise", "H cut through kernels"],
)
def test_other_layers_have_plain_codes(
    shape: tuple[int, ...], blocks: tuple[int, ...] | None
) -> None:
    weight = weights((24, 36))
    known = None
    if blocks is not None:
        known = SecondOrder(tuple(torch.eye(b)[None] for b in blocks), torch.ones(24))
    code = quantize(weight, context(shape, known), transform="cosine")
    plain = quantize(weight, context((24, 36), known), transform="none")
    assert code.facts == {"trellis": 1}
    assert torch.equal(decoded(code), decoded(plain))


@pytest.mark.parametrize(
    "kernel", ["7", "3x", "03x3", "3x3x3x3", "1x1", "0x3", "40x40", 3, 3.0, ""]
)
def test_kernels_that_do_not_fit_are_refused(kernel: Any) -> None:
    code = quantize(weights((8, 9)), context((8, 9)))
    with pytest.raises(ValueError, match=r"is no kernel|kernels of 7 taps do not fill 9 columns"):
        ECQ.check(replace(code, facts={**code.facts, "kernel": kernel}))
