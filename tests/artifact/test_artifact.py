"""Loading gives back what was saved bit for bit, and the same run writes the same bytes."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forging import take_apart
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.artifact.writer import (
    dense_bytes,
    file_bytes,
    untouched_tensors,
    write_tensors,
)
from vqzoo.errors import UsageError


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
    small.save(tmp_path / "a")
    loaded = vqzoo.load(tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(loaded(image(48, channels=1)), small(image(48, channels=1)))
    assert take_apart(tmp_path / "a").config["model_args"] == arguments


def test_arguments_that_no_artifact_can_hold_are_refused(tmp_path: Path) -> None:
    small = small_of(timm.create_model("test_vit"), layers="dense")
    with pytest.raises(UsageError, match="checkpoint_path"):
        small.save(tmp_path / "a", model_args={"checkpoint_path": "w.pth"})
    assert not list(tmp_path.iterdir())


def test_a_model_that_timm_did_not_create_is_refused(tmp_path: Path) -> None:
    small = vqzoo.compress(nn.Sequential(nn.Linear(32, 64)), "pq", k=4, d=4)
    with pytest.raises(UsageError, match="timm"):
        small.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_untouched_tensors_are_copied_only_if_necessary(model: nn.Module) -> None:
    dense, aliases = untouched_tensors(model, set())
    assert not aliases
    assert dense["conv1.0.weight"].data_ptr() == model.get_parameter("conv1.0.weight").data_ptr()


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
