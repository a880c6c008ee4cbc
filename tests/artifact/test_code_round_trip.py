"""Any code that the plugin contract allows survives a file, and so does any tensor."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.parts import part_keys
from vqzoo.artifact.reader import open_artifact
from vqzoo.artifact.schema import LayerEntry
from vqzoo.artifact.writer import (
    dense_bytes,
    untouched_tensors,
    write_artifact,
)
from vqzoo.compression.view import compressible_layers
from vqzoo.plugin import (
    Code,
    Floats,
    Indices,
    LayerContext,
    MethodCode,
    Quantizer,
    hookimpl,
    index_bits,
    stored_bits,
)
from vqzoo.plugin import manager as plugin_manager
from vqzoo.plugin.manager import Plugins, forget_plugins, installed_plugins


class Anything(Quantizer):
    """A method that accepts every valid Code."""

    name = "test-anything"

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        return Code((weight.shape[0], weight.shape[1]), {"values": Floats.of(weight)})

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return params["values"]


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    return [Anything()]


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[Plugins]:
    extra = ModuleType("vqzoo_artifact_tests")
    extra.__dict__.update(vqzoo_quantizers=vqzoo_quantizers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, extra.__name__, extra)
        points = [*entry_points(group="vqzoo"), EntryPoint("anything", extra.__name__, "vqzoo")]
        patch.setattr(plugin_manager, "entry_points", lambda group: points)
        forget_plugins()
        yield installed_plugins()
    forget_plugins()


shapes = st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple)
magnitudes = st.sampled_from([0.0, 1e-38, 1e-30, 1e-6, 1.0, 6e4, 1e6, 1e30, 1e38])
facts = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    st.one_of(
        st.booleans(),
        st.integers(-(2**62), 2**62),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    ),
    max_size=4,
)


@st.composite
def float_parts(draw: st.DrawFn) -> Floats:
    shape, size = draw(shapes), draw(magnitudes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    values = torch.rand(shape, generator=generator) * size * (1 if draw(st.booleans()) else -1)
    return Floats.of(values, draw(st.sampled_from(["float16", "bfloat16", "float32"])))


@st.composite
def index_parts(draw: st.DrawFn) -> Indices:
    bits = draw(st.integers(1, 16))
    cardinality = draw(st.integers(2 ** (bits - 1) + 1, 2**bits)) if bits > 1 else 2
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    values = torch.randint(0, cardinality, draw(shapes), generator=generator)
    return Indices(values, cardinality)


names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)


@st.composite
def codes(draw: st.DrawFn, depth: int = 2) -> Code:
    parts = draw(st.dictionaries(names, st.one_of(float_parts(), index_parts()), max_size=3))
    children = {}
    if depth:
        drawn = draw(st.dictionaries(names, codes(depth - 1), max_size=2))
        children = {
            name: MethodCode("test-anything", child)
            for name, child in drawn.items()
            if name not in parts
        }
    return Code((4, 6), parts, draw(facts), children)


def assert_same(one: Code, other: Code) -> None:
    assert one.shape == other.shape
    assert dict(one.facts) == dict(other.facts)
    assert {k: type(v) for k, v in one.facts.items()} == {
        k: type(v) for k, v in other.facts.items()
    }
    assert one.parts.keys() == other.parts.keys()
    for name, part in one.parts.items():
        loaded = other.parts[name]
        if isinstance(part, Indices):
            assert isinstance(loaded, Indices)
            assert loaded.cardinality == part.cardinality
            assert torch.equal(loaded.values.long(), part.values)
        else:
            assert isinstance(loaded, Floats)
            assert (loaded.exponent, loaded.stored.dtype) == (part.exponent, part.stored.dtype)
            assert torch.equal(loaded.stored, part.stored)
    assert one.children.keys() == other.children.keys()
    for name, child in one.children.items():
        assert_same(child.code, other.children[name].code)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(code=codes())
def test_any_code_survives_a_file(code: Code, plugins: Plugins, tmp_path: Path) -> None:
    compressed = MethodCode("test-anything", code)
    encoded = encode_layer("fc.weight", (4, 6), torch.float32, compressed, {}, "bits", plugins)
    assert 8 * encoded.nbytes == stored_bits(code)
    path = tmp_path / "code.safetensors"
    save_file(encoded.tensors, path)
    entry = LayerEntry.model_validate(json.loads(json.dumps(encoded.entry)))
    tensors = load_file(path)
    assert set(tensors) == set(part_keys("fc.weight", entry))
    assert_same(code, build_code("fc.weight", entry, tensors, plugins).code)


@pytest.mark.parametrize("bits", range(1, 17))
def test_codes_take_exactly_their_bits(bits: int, plugins: Plugins) -> None:
    values = torch.arange(1000) % 2**bits
    for cardinality in {2**bits, 2 ** (bits - 1) + 1}:
        part = Indices(values % cardinality, cardinality)
        assert part.bits == index_bits(cardinality) == bits
        compressed = MethodCode("test-anything", Code((10, 100), {"codes": part}))
        encoded = encode_layer("w", (10, 100), torch.float32, compressed, {}, "bits", plugins)
        assert encoded.nbytes == math.ceil(1000 * bits / 8)


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-10, 1e-5, 1.0, 1e5, 1e30, 3e38])
def test_float16_keeps_its_precision_at_any_magnitude(size: float) -> None:
    values = torch.linspace(0.1, 1, 50) * size
    part = Floats.of(values)
    assert torch.isfinite(part.values).all()
    relative = ((part.values.double() - values.double()) / values.double()).abs().max()
    assert relative <= 2**-11 * (1 + 1e-3)
    assert (part.exponent != 0) == (not 2**-6 <= size <= 2**15)


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e5, 1e20])
def test_scales_keep_their_precision_over_many_magnitudes(size: float) -> None:
    values = torch.logspace(0, -8, 40) * size
    part = Floats.scales(values)
    relative = ((part.values.double() - values.double()) / values.double()).abs().max()
    assert part.dtype == "float16"
    assert relative <= 2**-11 * (1 + 1e-3)


class Tied(nn.Module):
    """Shared, overlapping, empty and scalar tensors of every integer kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24)
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.embedding.weight
        self.twin = nn.Linear(24, 40, bias=False)
        self.twin.weight = self.head.weight
        flat = torch.arange(12.0)
        self.register_buffer("flat", flat)
        self.register_buffer("square", flat.view(3, 4))
        self.register_buffer("slice", flat[2:5])
        self.register_buffer("strided", flat.view(3, 4).T)
        self.register_buffer("scalar", torch.tensor(3, dtype=torch.int16))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("none", torch.empty(0, 5))
        self.register_buffer("unkept", torch.ones(2), persistent=False)


def test_tied_overlapping_and_scalar_tensors(plugins: Plugins, tmp_path: Path) -> None:
    model = Tied()
    layers, passed = compressible_layers(model)
    assert [layer.name for layer in layers] == ["head"]
    assert passed == {
        "embedding": "shares the weight of head",
        "twin": "shares the weight of head",
    }
    matrix = model.head.weight.detach()
    compressed = MethodCode("test-anything", Code((40, 24), {"values": Floats.of(matrix)}))
    encoded = encode_layer("head.weight", (40, 24), torch.float32, compressed, {}, "bits", plugins)
    write_artifact(tmp_path, model, [encoded], {}, method="x", weights="random")
    artifact = open_artifact(tmp_path)
    assert artifact.metadata.aliases == {
        "embedding.weight": "head.weight",
        "twin.weight": "head.weight",
    }
    stored = load_file(tmp_path / "vqzoo.safetensors")
    assert set(stored) == {
        "flat", "square", "slice", "strided", "scalar", "flag", "none", "head.weight::values"
    }  # fmt: skip
    for name in set(stored) - {"head.weight::values"}:
        buffer = model.get_buffer(name)
        assert torch.equal(stored[name], buffer)
        assert stored[name].dtype == buffer.dtype
        assert stored[name].shape == buffer.shape


@pytest.mark.parametrize("kind", ["test_resnet", "test_vit", "tied"])
def test_dense_bytes_are_those_of_a_real_file(kind: str, tmp_path: Path) -> None:
    model = Tied() if kind == "tied" else timm.create_model(kind)
    tensors, _ = untouched_tensors(model, set())
    path = tmp_path / "dense.safetensors"
    save_file({k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}, path)
    assert dense_bytes(model) == path.stat().st_size
    assert dense_bytes(model.half()) == path.stat().st_size, "counted in float32"
