"""prune and deep-compression."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from quantizing import fitted, quantize
from torch import Tensor, nn

import vqzoo
from vqzoo.compression.decode import decode
from vqzoo.compression.options import validate_options
from vqzoo.errors import PluginError, UsageError
from vqzoo.numerics.clustering.scalar_kmeans import scalar_kmeans
from vqzoo.plugin import Floats, Indices, MethodCode, SkipLayer
from vqzoo.plugin.manager import installed_plugins

PLUGINS = installed_plugins()


def weights(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def rebuilt(name: str, weight: Tensor, **options: object) -> Tensor:
    return decode(MethodCode(name, quantize(name, weight, **options)), PLUGINS)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 1.0])
def test_only_the_largest_weights_survive(density: float) -> None:
    weight = weights(40, 50)
    pruned = rebuilt("prune", weight, density=density, dtype="float32")
    count = round(density * weight.numel())
    flat = weight.reshape(-1).numpy()
    kept = np.argsort(-np.abs(flat))[:count]
    expected = np.zeros_like(flat)
    expected[kept] = flat[kept]
    np.testing.assert_array_equal(pruned.reshape(-1), expected)


def test_weights_above_a_threshold_survive() -> None:
    weight = weights(30, 30)
    pruned = rebuilt("prune", weight, threshold=1.5, dtype="float32")
    assert torch.equal(pruned, weight.where(weight.abs() > 1.5, 0.0))
    with pytest.raises(SkipLayer, match="no weight survives"):
        quantize("prune", weight, threshold=100.0)
    with pytest.raises(UsageError, match="not both"):
        quantize("prune", weight, threshold=1.0, density=0.5)


def test_pruned_weights_stay_pruned() -> None:
    weight = weights(20, 30)
    once = rebuilt("prune", weight, density=0.2)
    again = rebuilt("deep-compression", once * 1.5, density=0.6, bits=5)
    assert torch.equal(again != 0, once != 0)


@pytest.mark.parametrize("then", ["km:k=8", "pq:k=16,d=2", "rtn:format=int4"])
def test_any_method_may_compress_the_survivors(then: str, tmp_path: Path) -> None:
    weight = weights(32, 64)
    code = quantize("prune", weight, density=0.25, then=then)
    assert code.children["values"].method == then.partition(":")[0]
    matrix = decode(MethodCode("prune", code), PLUGINS)
    assert int((matrix != 0).sum()) <= 512
    kept = weight.where(rebuilt("prune", weight, density=0.25) != 0, 0.0)
    assert (matrix - kept).square().sum() < 0.3 * kept.square().sum()
    model = timm.create_model("test_vit", num_classes=3)
    small = vqzoo.compress(model, "prune", layers="all", density=0.25, then=then)
    small.save(tmp_path / "a")
    loaded = vqzoo.load(tmp_path / "a")
    for name, parameter in small.module.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name))


@pytest.mark.parametrize("then", ["km:k", "nosuch", "km:q=3", "km:k=3,q"])
def test_an_unknown_method_or_option_for_the_survivors_is_refused(then: str) -> None:
    layer = nn.Linear(16, 16)
    with pytest.raises((UsageError, PluginError), match=r"'km:k'|nosuch|no option 'q'|name=value"):
        vqzoo.compress(layer, "prune", then=then)


@pytest.mark.parametrize("init", ["linear", "density", "random", "optimal"])
def test_survivors_get_the_nearest_shared_value(init: str) -> None:
    weight = weights(40, 60)
    code = quantize("deep-compression", weight, density=0.3, bits=3, init=init)
    book = code.floats()["codebook"]
    assert len(book) == 8
    matrix = decode(MethodCode("deep-compression", code), PLUGINS)
    kept = rebuilt("prune", weight, density=0.3, dtype="float32")
    survivors = kept[kept != 0]
    nearest = book[(survivors[:, None] - book).abs().argmin(1)]
    assert torch.equal(matrix[kept != 0], nearest)
    best = scalar_kmeans(survivors, 8)
    optimum = (survivors - best.centroids[best.codes.long()]).square().sum()
    worst = 8.0 if init == "random" else 1.6  # Lloyd's iterations end near their start
    assert optimum * 0.999 <= (matrix - kept).square().sum() <= worst * optimum


def test_linear_initialization_keeps_the_largest_weights() -> None:
    weight = weights(64, 64) ** 3
    far = weight.abs() > weight.abs().quantile(0.99)
    error = {
        init: (rebuilt("deep-compression", weight, bits=4, init=init) - weight)[far].square().sum()
        for init in ("linear", "density")
    }
    assert error["linear"] < 0.8 * error["density"]


def test_bits_and_densities_default_to_those_of_the_paper() -> None:
    model = timm.create_model("test_resnet", num_classes=200)
    small = vqzoo.compress(model, "deep-compression", layers="all")
    for layer in small.layers:
        codes = layer.compressed.code.parts["codes"]
        assert isinstance(codes, Indices)
        kind = layer.layer.kind
        assert codes.cardinality == min(256 if kind == "conv2d" else 32, codes.values.numel())
        density = codes.values.numel() / layer.layer.numel
        assert density == pytest.approx(0.35 if kind == "conv2d" else 0.1, abs=0.01)


def test_the_gradient_of_a_shared_value_is_the_sum_of_its_weights_gradients() -> None:
    weight = weights(12, 10)
    code = quantize("deep-compression", weight, density=0.5, bits=2)
    method = PLUGINS.quantizers.get("deep-compression").item
    book = code.floats()["codebook"].requires_grad_()
    upstream = weights(12, 10, seed=1)
    (method.reconstruct(code, {"codebook": book}) * upstream).sum().backward()
    matrix = decode(MethodCode("deep-compression", code), PLUGINS)
    expected = [upstream[matrix == value].sum() for value in code.floats()["codebook"]]
    torch.testing.assert_close(book.grad, torch.stack(expected))


def test_the_earlier_stage_prunes_to_the_same_density() -> None:
    method = PLUGINS.quantizers.get("deep-compression").item
    options = validate_options(method, {"density": 0.2, "bits": 4})
    ((name, stage_options),) = method.stages(options)
    weight = weights(16, 16)
    stage, _, _ = fitted(PLUGINS.quantizers.get(name).item, weight, stage_options)
    final = quantize("deep-compression", weight, density=0.2, bits=4)
    assert torch.equal(stage.indices("gaps"), final.indices("gaps"))


def test_fewer_survivors_than_shared_values_get_a_value_each() -> None:
    code = quantize("deep-compression", weights(4, 4), density=0.2, bits=8)
    book = code.parts["codebook"]
    assert isinstance(book, Floats)
    assert len(book.stored) == 3
