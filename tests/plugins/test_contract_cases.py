"""Three cases that the contract must support: prune then pq, a rotation then pq, fine-tuned pq.

Each is compressed, saved and loaded, with plugins that this file defines.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from pydantic import Field
from torch import Tensor, nn

import vqzoo
from vqzoo.compression.decode import decode, reconstruct, retuned, trainable
from vqzoo.errors import PluginError, UsageError, VqzooError
from vqzoo.plugin import (
    Code,
    Floats,
    Indices,
    LayerContext,
    MethodCode,
    Options,
    Quantizer,
    Transform,
    hookimpl,
)
from vqzoo.plugin import manager as plugin_manager
from vqzoo.plugin.manager import Plugins, forget_plugins, installed_plugins


class PruneOptions(Options):
    """What is kept, and how the survivors are compressed."""

    density: float = Field(0.25, gt=0, le=1, description="share of the weights that survives")
    k: int = Field(16, ge=1, description="centroids for the survivors")


class Prune(Quantizer):
    """Magnitude pruning; the survivors, in rows of 4, are another method's."""

    name = "test-prune"
    Options = PruneOptions

    def quantize(self, weight: Tensor, options: PruneOptions, context: LayerContext) -> Code:
        count = 4 * max(1, round(options.density * weight.numel() / 4))
        kept = weight.abs().reshape(-1).topk(min(count, weight.numel() // 4 * 4)).indices
        mask = torch.zeros(weight.numel(), dtype=torch.uint8)
        mask[kept] = 1
        survivors = weight.reshape(-1)[mask.bool()].reshape(-1, 4)
        child = context.quantize("pq", survivors, {"k": options.k, "d": 2})
        shape = (weight.shape[0], weight.shape[1])
        return Code(shape, {"mask": Indices(mask.view(shape), 2)}, {}, {"survivors": child})

    def check(self, code: Code) -> None:
        mask = code.require_indices("mask", code.shape).values
        child = code.children.get("survivors")
        if child is None or int(mask.sum()) != math.prod(child.code.shape):
            raise ValueError("the mask does not fit the survivors")

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        mask = code.indices("mask").bool()
        survivors = params["survivors"].reshape(-1)
        return torch.zeros(code.shape).masked_scatter(mask, survivors)


class Rotation(Transform):
    """A random rotation of the rows, two reflections; what undoes it is its seed."""

    name = "test-rotation"

    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        m, n = weight.shape
        facts = {"seed": context.seed}
        first, second = self._mirrors(n, context.seed)
        return self._reflect(self._reflect(weight, first), second), Code((m, n), {}, facts)

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        seed = code.require_fact("seed", 0, 2**32)
        first, second = self._mirrors(code.shape[1], seed)
        return self._reflect(self._reflect(params["weight"], second), first)

    def _mirrors(self, n: int, seed: int) -> Tensor:
        noise = torch.randn(2, n, generator=torch.Generator().manual_seed(seed))
        return noise / noise.norm(dim=1, keepdim=True)

    def _reflect(self, matrix: Tensor, mirror: Tensor) -> Tensor:
        return matrix - 2 * (matrix @ mirror)[:, None] * mirror


class RowScaling(Transform):
    """Divides rows by their largest magnitude: a transform with trainable floats, and padding."""

    name = "test-scaling"

    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        m, n = weight.shape
        scale = Floats.scales(weight.abs().amax(dim=1).clamp_(min=1e-20))
        padded = nn.functional.pad(weight / scale.values[:, None], (0, -n % 8))
        return padded, Code((m, n), {"scale": scale})

    def check(self, code: Code) -> None:
        code.require_floats("scale", code.shape[:1])

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return params["weight"][:, : code.shape[1]] * params["scale"][:, None]


class Broken(Quantizer):
    """Breaks the contract in a way that its option chooses."""

    name = "test-broken"

    class BrokenOptions(Options):
        """How."""

        how: str = Field("raise", description="what to do wrong")

    Options = BrokenOptions

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        shape = (weight.shape[0], weight.shape[1])
        zeros = torch.zeros(shape, dtype=torch.uint8)
        tiny = context.quantize("pq", weight[:1].contiguous(), {"k": 2})
        huge = replace(tiny, code=replace(tiny.code, shape=(10**5, 10**5)))
        codes: dict[str, Callable[[], Any]] = {
            "raise": lambda: 1 / 0,
            "none": lambda: None,
            "shape": lambda: Code((1, 1), {}),
            "range": lambda: Code(shape, {"codes": Indices(zeros + 2, 2)}),
            "floats": lambda: Code(shape, {"book": Floats(torch.full((2,), torch.nan))}),
            "dtype": lambda: Code(shape, {"book": Floats(torch.zeros(2, dtype=torch.float64))}),
            "name": lambda: Code(shape, {"a.b": Indices(zeros, 2)}),
            "fact": lambda: Code(shape, {"codes": Indices(zeros, 2)}, {"x": math.inf}),
            "list": lambda: Code(shape, {"codes": Indices(zeros, 2)}, {"x": [1]}),  # type: ignore[dict-item]
            "child": lambda: Code(shape, {}, {}, {"huge": huge}),
            "unknown": lambda: context.quantize("no-such-method", weight, {}),
            "decode": lambda: Code(shape, {"codes": Indices(zeros, 2)}),
        }
        code: Code = codes[options.how]()
        return code

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return torch.full(code.shape, torch.inf)


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    return [Prune(), Broken()]


@hookimpl
def vqzoo_transforms() -> list[Transform]:
    return [Rotation(), RowScaling()]


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[Plugins]:
    """The installed plugins and those above, as if they were installed."""
    extra = ModuleType("vqzoo_contract_cases")
    extra.__dict__.update(vqzoo_quantizers=vqzoo_quantizers, vqzoo_transforms=vqzoo_transforms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, extra.__name__, extra)
        points = [*entry_points(group="vqzoo"), EntryPoint("cases", extra.__name__, "vqzoo")]
        patch.setattr(plugin_manager, "entry_points", lambda group: points)
        forget_plugins()
        yield installed_plugins()
    forget_plugins()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7).eval()


def assert_saved_and_loaded(small: vqzoo.CompressedModel, folder: Path) -> nn.Module:
    """The loaded network equals the one in memory bit for bit."""
    small.save(folder)
    loaded = vqzoo.load(folder)
    expected = small.module.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    return loaded


def test_prune_then_pq(model: nn.Module, plugins: Plugins, tmp_path: Path) -> None:
    small = vqzoo.compress(model, "test-prune", layers="conv", density=0.25)
    layer = max(small.layers, key=lambda layer: layer.layer.numel)
    assert layer.compressed.code.children["survivors"].method == "pq"
    weight = model.get_parameter(layer.layer.name + ".weight").detach()
    decoded = decode(layer.compressed, plugins).view(weight.shape)
    threshold = weight.abs().reshape(-1).quantile(0.75)
    clear = (weight.abs() - threshold).abs() > 1e-6
    assert torch.equal((decoded != 0)[clear], (weight.abs() > threshold)[clear])
    assert_saved_and_loaded(small, tmp_path / "a")


def test_a_rotation_then_pq(model: nn.Module, plugins: Plugins, tmp_path: Path) -> None:
    small = vqzoo.compress(
        model, "pq", layers="conv", transforms=["test-rotation"], k=32, d=2, codebook="layer"
    )
    for layer in small.layers:
        assert layer.compressed.method == "test-rotation"
        assert layer.compressed.code.children["weight"].method == "pq"
        assert layer.error.sqnr_db is not None
        assert layer.error.sqnr_db > 8
    assert_saved_and_loaded(small, tmp_path / "a")


def test_transforms_run_first_one_first_and_may_change_the_shape(
    model: nn.Module, tmp_path: Path
) -> None:
    small = vqzoo.compress(
        model, "pq", layers="conv", transforms=["test-scaling", "test-rotation"], k=32, d=4
    )
    changed = 0
    for layer in small.layers:
        outer = layer.compressed
        inner = outer.code.children["weight"]
        assert (outer.method, inner.method) == ("test-scaling", "test-rotation")
        assert inner.code.shape[1] % 8 == 0
        changed += inner.code.shape != outer.code.shape
        assert layer.error.sqnr_db is not None
        assert layer.error.sqnr_db > 2
    assert changed, "no layer was padded: the test does not test it"
    assert_saved_and_loaded(small, tmp_path / "a")


def test_options_are_chosen_for_the_matrix_that_is_quantized(model: nn.Module) -> None:
    """Behind a transform that pads, k may be as large as the padded matrix allows."""
    padded = vqzoo.compress(model, "pq", layers="conv", transforms=["test-scaling"], ratio=6)
    for layer in padded.layers:
        child = layer.compressed.code.children["weight"].code
        codes = child.parts["codes"]
        assert isinstance(codes, Indices)
        assert codes.values.numel() * layer.options["d"] == math.prod(child.shape)


def test_fine_tuning_of_pq(model: nn.Module, plugins: Plugins, tmp_path: Path) -> None:
    """Codebooks are trained and codes stay; the trained values are rounded, stored and loaded."""
    small = vqzoo.compress(model, "pq", layers="dense", k=16, d=4, scale="row")
    (layer,) = small.layers
    before = layer.compressed
    tuned = fine_tune(before, plugins)

    assert loss_of(decode(tuned, plugins)) < 0.8 * loss_of(decode(before, plugins))
    assert torch.equal(tuned.code.indices("codes"), before.code.indices("codes"))
    assert {p.stored.dtype for p in tuned.code.parts.values() if isinstance(p, Floats)} == {
        torch.float16
    }
    module = small.module
    with torch.no_grad():
        module.get_parameter(layer.layer.name + ".weight").copy_(decode(tuned, plugins))
    again = vqzoo.CompressedModel(module, [replace(layer, compressed=tuned)], small.skipped)
    loaded = assert_saved_and_loaded(again, tmp_path / "a")
    assert loss_of(loaded.get_parameter(layer.layer.name + ".weight")) == loss_of(
        decode(tuned, plugins)
    )


@pytest.mark.parametrize("method", ["test-prune", "pq"])
def test_fine_tuning_reaches_children(method: str, model: nn.Module, plugins: Plugins) -> None:
    transforms = ["test-scaling"] if method == "pq" else []
    small = vqzoo.compress(model, method, layers="dense", transforms=transforms, k=16)
    compressed = small.layers[0].compressed
    names = set(trainable(compressed, plugins))
    child = "survivors" if method == "test-prune" else "weight"
    expected = {f"{child}.codebook", f"{child}.scale"} | ({"scale"} if method == "pq" else set())
    assert names == expected
    tuned = fine_tune(compressed, plugins)
    assert loss_of(decode(tuned, plugins)) < loss_of(decode(compressed, plugins))


def test_reconstruct_is_decode(model: nn.Module, plugins: Plugins) -> None:
    for method, transforms in (("test-prune", []), ("pq", ["test-scaling", "test-rotation"])):
        small = vqzoo.compress(model, method, layers="dense", transforms=transforms, k=16)
        compressed = small.layers[0].compressed
        exact = decode(compressed, plugins)
        torch.testing.assert_close(reconstruct(compressed, {}, plugins), exact)
        same = retuned(compressed, trainable(compressed, plugins))
        assert torch.equal(decode(same, plugins), exact)


def test_retuning_refuses_what_is_not_a_part(model: nn.Module, plugins: Plugins) -> None:
    compressed = vqzoo.compress(model, "pq", layers="dense", k=16).layers[0].compressed
    book = compressed.code.floats()["codebook"]
    with pytest.raises(ValueError, match="nonsense"):
        retuned(compressed, {"nonsense": book})
    with pytest.raises(ValueError, match="codes"):
        retuned(compressed, {"codes": book})
    with pytest.raises(ValueError, match="shape"):
        retuned(compressed, {"codebook": book[:1, :3]})


def target() -> Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(1))


def loss_of(matrix: Tensor) -> float:
    return float(loss(matrix.detach()))


def loss(matrix: Tensor) -> Tensor:
    """Mean squared error of a linear layer's outputs on some inputs, with `target` as reference."""
    inputs = torch.randn(16, matrix.shape[1], generator=torch.Generator().manual_seed(2))
    return (inputs @ matrix.T[:, :5] - target()).square().mean()


def fine_tune(compressed: MethodCode, plugins: Plugins) -> MethodCode:
    params = {n: t.clone().requires_grad_() for n, t in trainable(compressed, plugins).items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(reconstruct(compressed, params, plugins)).backward()
        optimizer.step()
    return retuned(compressed, params)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "ZeroDivisionError"),
        ("none", "not a Code"),
        ("shape", "shape"),
        ("range", "outside"),
        ("floats", "NaN"),
        ("dtype", "float64"),
        ("name", "a.b"),
        ("fact", "inf"),
        ("list", "not a scalar"),
        ("child", "huge"),
        ("decode", "infinite"),
    ],
)
def test_the_error_of_a_broken_contract_names_plugin_and_layer(
    model: nn.Module, how: str, cause: str
) -> None:
    with pytest.raises(PluginError, match=cause) as caught:
        vqzoo.compress(model, "test-broken", layers="dense", how=how)
    assert "test-broken" in str(caught.value)
    assert "fc" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_child_of_an_unknown_method(model: nn.Module) -> None:
    with pytest.raises(UsageError, match="no method called 'no-such-method'"):
        vqzoo.compress(model, "test-broken", layers="dense", how="unknown")


def test_an_artifact_whose_plugin_is_not_installed(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqzoo.compress(model, "test-prune", layers="dense").save(tmp_path / "a")
    monkeypatch.setattr(plugin_manager, "entry_points", entry_points)
    forget_plugins()
    try:
        with pytest.raises(VqzooError, match="needs method 'test-prune'"):
            vqzoo.load(tmp_path / "a")
    finally:
        monkeypatch.undo()
        forget_plugins()
