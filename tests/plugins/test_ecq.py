"""ecq against the definition, rate-distortion theory, and plain rounding on a real network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantizing import layer_context
from torch import Tensor

from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.reader import open_artifact
from vqzoo.calibration.second_order.statistics import second_order
from vqzoo.compression.options import validate_options
from vqzoo.compression.view import compressible_layers
from vqzoo.data.calibration_data import open_calibration_data
from vqzoo.models.dense import find_model
from vqzoo.plugin import Code, Floats, Indices, MethodCode, SecondOrder
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher

PLUGINS = installed_plugins()
ECQ = PLUGINS.quantizers.get("ecq").item
# ISO/IEC 15938-17: state -> the next one after an even and after an odd code.
MACHINE = [(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)]


def quantize(weight: Tensor, statistics: SecondOrder | None = None, **options: Any) -> Code:
    shape = (weight.shape[0], weight.shape[1])
    context = replace(layer_context(shape), second_order=statistics)
    return ECQ.quantize(weight, validate_options(ECQ, options), context)


def decoded(code: Code) -> Tensor:
    ECQ.check(code)
    return ECQ.decode(code, code.floats())


def stored_bytes(code: Code, packing: str | None = None) -> int:
    """Bytes in a file."""
    compressed = MethodCode("ecq", code)
    return encode_layer("w", code.shape, torch.float32, compressed, {}, packing, PLUGINS).nbytes


def random_weights(m: int, n: int) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.mark.parametrize("trellis", [False, True])
def test_weights_are_levels_times_steps(trellis: bool) -> None:
    code = quantize(random_weights(300, 20), trellis=trellis, price=1e-4)
    codes, steps = code.parts["codes"], code.indices("steps").tolist()
    assert isinstance(codes, Indices)
    expected = np.empty((300, 20))
    for j in range(20):
        state = 0
        for i in range(300):
            state = state if i % 128 else 0
            q = int(codes.values[i, j]) - codes.cardinality // 2
            level = 2 * q - state % 2 * ((q > 0) - (q < 0)) if trellis else q
            state = MACHINE[state][q % 2]
            expected[i, j] = level * 2 ** ((steps[i] + steps[300 + j]) / 2)
    expected *= float(code.floats()["step"])
    assert np.allclose(decoded(code).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("trellis", "low", "high"), [(False, 0.22, 0.28), (True, 0.06, 0.16)])
def test_bits_above_the_bound_of_normal_weights(trellis: bool, low: float, high: float) -> None:
    """½ log2(σ²/D) is the bound; a plain grid with entropy coding stays 0.254 bits above it."""
    weight = random_weights(1024, 512)
    code = quantize(weight, trellis=trellis, price=2e-6)
    error = float((decoded(code) - weight).square().sum() / weight.square().sum())
    bits = 8 * stored_bytes(code) / weight.numel()
    assert low < bits + 0.5 * np.log2(error) < high


def test_a_higher_price_makes_files_smaller_and_errors_larger() -> None:
    weight = random_weights(128, 128)
    codes = [quantize(weight, price=price) for price in (1e-5, 1e-4, 1e-3)]
    sizes = [stored_bytes(code) for code in codes]
    errors = [float((decoded(code) - weight).square().sum()) for code in codes]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[2] < 0.6 * sizes[0]


def test_gradients_reach_the_step() -> None:
    code = quantize(random_weights(20, 30), price=1e-4)
    expected = float(decoded(code).sum() / code.floats()["step"])
    step = code.floats()["step"].requires_grad_()
    ECQ.reconstruct(code, {"step": step}).sum().backward()
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def layers() -> list[tuple[Tensor, SecondOrder]]:
    """Two convolutions and the head of a trained network, and what 64 images say about them."""
    model = find_model("alexnet_mini.fmnist", SilentWatcher()).module
    every, _ = compressible_layers(model)
    chosen = [every[1], every[2], every[-1]]
    data = open_calibration_data("fmnist", model, images=64)
    statistics = second_order(model, chosen, data.batches(), 64)
    matrices = [model.get_submodule(layer.name).weight.detach().flatten(1) for layer in chosen]
    return [
        (w.contiguous(), statistics[layer.name]) for w, layer in zip(matrices, chosen, strict=True)
    ]


def weighted_loss(error: Tensor, statistics: SecondOrder) -> float:
    """½ Σ g e H eᵀ by the definition."""
    (blocks,) = statistics.hessian
    total, rows = 0.0, len(error) // len(blocks)
    for group, block in enumerate(blocks.double()):
        part = slice(group * rows, (group + 1) * rows)
        e = error[part].double()
        total += 0.5 * float(
            (statistics.row_weights[part].double() * ((e @ block) * e).sum(1)).sum()
        )
    return total


@pytest.mark.parametrize("place", range(3))
def test_statistics_lower_the_loss_of_answers_at_equal_bytes(place: int, layers) -> None:
    weight, known = layers[place]
    code = quantize(weight, known, price=2e-6)
    size, loss = stored_bytes(code), weighted_loss(weight - decoded(code), known)
    for price in 10 ** np.arange(-1, -9, -0.25):  # falling, until the file is as large
        blind = quantize(weight, price=price)
        if stored_bytes(blind) >= size:
            break
    assert stored_bytes(blind) >= size
    assert loss < 0.6 * weighted_loss(weight - decoded(blind), known)


def test_a_layer_that_no_answer_depends_on_is_still_compressed(layers) -> None:
    weight, known = layers[-1]
    notes: list[str] = []
    context = replace(
        layer_context((10, weight.shape[1])),
        second_order=SecondOrder(known.hessian, torch.zeros(10)),
        note=notes.append,
    )
    code = ECQ.quantize(weight, validate_options(ECQ, {"price": 1e-4}), context)
    assert notes == ["its errors do not change the logits of the calibration images"]
    assert (decoded(code) - weight).square().sum() < 0.5 * weight.square().sum()


def test_blocks_of_the_hessian_are_quantized_one_by_one() -> None:
    weight = random_weights(40, 60)
    x = torch.randn(200, 60, generator=torch.Generator().manual_seed(1)).cumsum(1)
    hessian = x.T @ x / 200
    g = torch.ones(40)
    blocks = hessian[None, :25, :25], hessian[None, 25:, 25:]
    split = quantize(weight, SecondOrder(blocks, g), price=1e-3)
    whole = torch.zeros(60, 60)
    whole[:25, :25], whole[25:, 25:] = hessian[:25, :25], hessian[25:, 25:]
    error = weight - decoded(split)
    plain = weight - decoded(quantize(weight, price=1e-3))
    assert stored_bytes(split) > 0
    loss = [float((((e @ whole) * e).sum(1)).sum()) for e in (error, plain)]
    bits = [8 * stored_bytes(split), 8 * stored_bytes(quantize(weight, price=1e-3))]
    # At the rate of the other, by 6.02 dB a bit.
    assert loss[0] * 4 ** ((bits[0] - bits[1]) / weight.numel()) < 0.9 * loss[1]


def damaged(code: Code, **parts: Any) -> Code:
    return replace(code, parts={**code.parts, **parts})


def test_codes_that_quantize_would_not_give_are_refused() -> None:
    code = quantize(random_weights(8, 9), price=1e-3)
    codes, steps = code.parts["codes"], code.parts["steps"]
    assert isinstance(codes, Indices)
    assert isinstance(steps, Indices)
    huge = Indices(torch.full((17,), 255), 256)
    for bad, reason in [
        (damaged(code, codes=replace(codes, cardinality=codes.cardinality + 1)), "no middle"),
        (damaged(code, steps=replace(steps, cardinality=300)), "too large"),
        (damaged(code, steps=huge), "overflow"),
        (damaged(code, step=Floats(torch.ones(1), 200)), "overflow"),
        (damaged(code, step=Floats(torch.ones(2))), "shape"),
        (replace(code, facts={"trellis": 2}), "trellis"),
        (replace(code, facts={}), "trellis"),
    ]:
        with pytest.raises(ValueError, match=reason):
            ECQ.check(bad)


def test_a_run_stores_codes_by_their_own_packing_unless_told_otherwise(
    vqzoo, tmp_path: Path
) -> None:
    run = ["run", "alexnet_mini.fmnist", "-m", "ecq", "-o", "price=3e-4", "--images", "100"]
    sizes = {}
    for packing in ("", "bits"):
        extra = ["--packing", packing] if packing else []
        done = vqzoo(*run, "--out", f"by{packing}", *extra)
        assert done.exit_code == 0, done.stderr
        artifact = open_artifact(tmp_path / f"by{packing}")
        packings = {
            entry.code.parts["codes"].packing for entry in artifact.metadata.layers.values()
        }
        assert packings == {packing or "context"}
        sizes[packing] = artifact.weights_path.stat().st_size
    assert sizes[""] < 0.8 * sizes["bits"]
    refused = vqzoo(*run, "--ratio", "16", "--out", "other")
    assert refused.exit_code != 0
    assert "ecq" in refused.stderr
