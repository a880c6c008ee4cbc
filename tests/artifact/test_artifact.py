"""Loading gives back what was saved bit for bit, and the same run writes the same bytes."""

import json
import math
import struct
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from forging import take_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.codes import build_code
from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.parts import part_keys
from vqzoo.artifact.reader import open_artifact
from vqzoo.artifact.schema import LayerEntry
from vqzoo.artifact.writer import (
    dense_bytes,
    file_bytes,
    untouched_tensors,
    write_artifact,
    write_tensors,
)
from vqzoo.compression.view import compressible_layers
from vqzoo.errors import UsageError
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


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=11)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
        else:
            buffer.fill_(len(name))
    return model


def small_of(model: nn.Module, **options: Any) -> vqzoo.CompressedModel:
    return vqzoo.compress(model, "pq", **{"layers": "all", "k": 4, "d": 4, **options})


@pytest.fixture(scope="module")
def saved(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "saved"
    small_of(model, layers=["conv", "!conv1.*"]).save(folder)
    return folder


def test_saving_twice_writes_the_same_bytes(model: nn.Module, saved: Path, tmp_path: Path) -> None:
    small_of(model, layers=["conv", "!conv1.*"]).save(tmp_path / "again")
    for name in ("config.json", "vqzoo.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_header_holds_one_key_of_sorted_json(saved: Path) -> None:
    with safe_open(saved / "vqzoo.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["vqzoo"]
    value = json.loads(metadata["vqzoo"])
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert metadata["vqzoo"].rstrip(" ") == text


def test_sizes_do_not_depend_on_the_weights(model: nn.Module, tmp_path: Path) -> None:
    """Exponents of float parts with any number of digits give a file of the same size."""
    sizes = set()
    for power in (0, -30):
        with torch.no_grad():
            model.get_parameter("layer1.0.conv1.weight").mul_(2.0**power)
        vqzoo.compress(model, "km", layers="layer1.0.conv1", k=4).save(tmp_path / str(power))
        sizes.add((tmp_path / str(power) / "vqzoo.safetensors").stat().st_size)
        exponent = take_apart(tmp_path / str(power)).layer()["code"]["parts"]["scale"]["exponent"]
        assert len(str(exponent)) == (1 if power == 0 else 3)
    assert len(sizes) == 1


def test_the_size_of_a_file_is_computed_for_every_dtype(tmp_path: Path) -> None:
    dtypes = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float16]
    dtypes += [torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.float64]
    dtypes += [torch.int64, torch.uint64]
    tensors = {f'{i % 3} "ü {i}': torch.zeros(i * 7, 2, dtype=d) for i, d in enumerate(dtypes)}
    for metadata in ({"vqzoo": '{"a":"b"}' + "\\" * 9}, {"format": "pt"}):
        write_tensors(tmp_path / "a", tensors, metadata)
        assert file_bytes(tensors, metadata) == (tmp_path / "a").stat().st_size


def test_layer_entries_follow_the_format(saved: Path, model: nn.Module) -> None:
    pieces = take_apart(saved)
    weight = model.get_parameter("layer1.0.conv1.weight")
    entry = pieces.metadata["layers"]["layer1.0.conv1.weight"]
    m, n = weight.shape[0], weight[0].numel()
    assert entry["shape"] == list(weight.shape)
    assert entry["dtype"] == "float32"
    assert entry["view"] == [m, n]
    assert entry["options"]["k"] == 4
    code = entry["code"]
    assert (code["method"], code["shape"]) == ("pq", [m, n])
    assert {"method_version", "plugin", "plugin_version"} <= code.keys()
    assert code["parts"]["codes"] == {
        "kind": "indices",
        "shape": [n // 4, m],
        "cardinality": 4,
        "packing": "bits",
        "packing_version": "1",
    }
    assert code["parts"]["codebook"]["kind"] == "floats"
    assert code["parts"]["codebook"]["dtype"] == "float16"
    assert len(pieces.data["layer1.0.conv1.weight::codes"]) == math.ceil(m * n / 4 * 2 / 8)
    assert pieces.header["layer1.0.conv1.weight::codes"]["dtype"] == "U8"
    assert pieces.block["bytes"] == (saved / "vqzoo.safetensors").stat().st_size
    assert pieces.block["method"] == "pq"
    assert pieces.metadata["format_version"] == pieces.block["format_version"] == 1


def test_uncompressed_tensors_are_stored_unchanged(saved: Path, model: nn.Module) -> None:
    loaded = vqzoo.load(saved).state_dict()
    compressed = set(open_artifact(saved).metadata.layers)
    stored = load_file(saved / "vqzoo.safetensors")
    assert "conv1.0.weight" not in compressed
    assert "fc.weight" not in compressed
    assert "bn1.num_batches_tracked" in stored
    for key, tensor in model.state_dict().items():
        if key not in compressed:
            assert torch.equal(loaded[key], tensor), key
            assert torch.equal(stored[key], tensor), key
            assert loaded[key].dtype == tensor.dtype
    assert vqzoo.load(saved).training is False


def image(size: int, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224)],
)
def test_real_architectures_give_the_same_logits(name: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model(name)
    small = vqzoo.compress(model, "rtn", layers="largest:5", format="int4")
    small.save(tmp_path / "a")
    loaded = vqzoo.load(tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(loaded(image(size)), small(image(size)))
    expected = dict(model.named_buffers())
    for key, buffer in loaded.named_buffers():
        assert torch.equal(buffer, expected[key]), key
    assert (tmp_path / "a/vqzoo.safetensors").stat().st_size < dense_bytes(model)


def test_model_arguments_are_kept(tmp_path: Path) -> None:
    arguments = {"img_size": 48, "in_chans": 1}
    model = timm.create_model("test_vit", num_classes=5, **arguments)
    small = small_of(model, layers="dense")
    small.save(tmp_path / "a", model_args=arguments)
    loaded = vqzoo.load(tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(loaded(image(48, channels=1)), small(image(48, channels=1)))
    assert take_apart(tmp_path / "a").config["model_args"] == arguments


def test_arguments_that_no_artifact_can_hold_are_refused(tmp_path: Path) -> None:
    small = small_of(timm.create_model("test_vit"), layers="dense")
    with pytest.raises(UsageError, match="drop_rate"):
        small.save(tmp_path / "a", model_args={"drop_rate": 0.5})
    assert not list(tmp_path.iterdir())


def test_a_model_that_timm_did_not_create_is_refused(tmp_path: Path) -> None:
    small = vqzoo.compress(nn.Sequential(nn.Linear(32, 64)), "pq", k=4, d=4)
    with pytest.raises(UsageError, match="timm"):
        small.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


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
    assert passed == {"twin": "shares the weight of head"}
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


def test_untouched_tensors_are_copied_only_if_necessary(model: nn.Module) -> None:
    dense, aliases = untouched_tensors(model, set())
    assert not aliases
    assert dense["conv1.0.weight"].data_ptr() == model.get_parameter("conv1.0.weight").data_ptr()


@pytest.mark.parametrize("kind", ["test_resnet", "test_vit", "tied"])
def test_dense_bytes_are_those_of_a_real_file(kind: str, tmp_path: Path) -> None:
    model = Tied() if kind == "tied" else timm.create_model(kind)
    tensors, _ = untouched_tensors(model, set())
    path = tmp_path / "dense.safetensors"
    save_file({k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}, path)
    assert dense_bytes(model) == path.stat().st_size
    assert dense_bytes(model.half()) == path.stat().st_size, "counted in float32"


def test_a_half_precision_model_is_loaded_as_it_ran(model: nn.Module, tmp_path: Path) -> None:
    half = timm.create_model("test_resnet", num_classes=11)
    half.load_state_dict(model.state_dict())
    small = small_of(half.half(), layers="dense")
    small.save(tmp_path / "a")
    loaded = vqzoo.load(tmp_path / "a").state_dict()
    for key, tensor in small.module.state_dict().items():
        assert torch.equal(loaded[key], tensor.to(loaded[key].dtype)), key


def test_loading_does_not_change_the_random_state(saved: Path) -> None:
    before = torch.get_rng_state()
    vqzoo.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_headers_are_read_without_the_weights(saved: Path, tmp_path: Path) -> None:
    """Other bytes behind the header change nothing."""
    folder = tmp_path / "copy"
    folder.mkdir()
    raw = (saved / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    (folder / "config.json").write_bytes((saved / "config.json").read_bytes())
    blank = raw[: 8 + length] + bytes(len(raw) - 8 - length)
    (folder / "vqzoo.safetensors").write_bytes(blank)
    assert open_artifact(folder).metadata == open_artifact(saved).metadata
