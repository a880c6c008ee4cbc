"""The layout `compact`: the same network in fewer bytes, and hostile indices."""

import json
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from forging import reseal_bytes
from safetensors import safe_open

import vqzoo
from vqzoo.artifact.header import read_header
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import ArtifactError

load = vqzoo.load  # tests have a fixture of the package's name
Vqzoo = Callable[..., Any]
VALUES: list[Any] = [
    -1, 0, 1, 7, 1 << 31, 1 << 63, 10**40, 0.5, 1e308, True, None, "", "F32", "U8", "x" * 300, [],
    [0], [1 << 33] * 8, {}, "fc.weight",
]  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network in both layouts."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
        model.layer1[0].bn1.running_mean.fill_(-0.0)
        model.layer1[0].bn2.running_mean.zero_()[0] = -0.0  # another bit pattern than 0
    folder = tmp_path_factory.mktemp("layouts")
    small = vqzoo.compress(model, "pq", layers="all", k=8, d=4)
    for layout in ("plain", "compact"):
        small.save(folder / layout, layout=layout)
    return folder


def test_both_layouts_hold_the_same_bits(both: Path) -> None:
    plain, compact = (open_artifact(both / name) for name in ("plain", "compact"))
    assert plain.metadata.layers == compact.metadata.layers
    assert plain.header.tensors.keys() == compact.header.tensors.keys()
    assert compact.metadata.required_features == ["compact"]
    for mode in ("decoded", "codes"):
        states = [load(both / name, mode=mode).state_dict() for name in ("plain", "compact")]
        assert list(states[0]) == list(states[1])
        for key, tensor in states[0].items():
            values = tensor.reshape(-1).view(torch.uint8)
            assert torch.equal(values, states[1][key].reshape(-1).view(torch.uint8)), key


def test_the_header_shrinks(both: Path) -> None:
    sizes = []
    for name in ("plain", "compact"):
        artifact = open_artifact(both / name)
        assert artifact.header.file_bytes == (both / name / "vqzoo.safetensors").stat().st_size
        sizes.append(
            artifact.header.file_bytes - sum(t.nbytes for t in artifact.header.tensors.values())
        )
    assert sizes[1] < sizes[0] / 5


def test_vectors_of_one_value_have_no_bytes(both: Path) -> None:
    tensors = open_artifact(both / "compact").dense_tensors()
    constants = {key: tensor for key, tensor in tensors.items() if tensor.value is not None}
    counts = [key for key in tensors if key.endswith("num_batches_tracked")]
    assert constants.keys() == {*counts, "layer1.0.bn1.running_mean"}
    assert all(tensor.nbytes == 0 for tensor in constants.values())


def test_the_specification_is_enough_to_read_a_file(both: Path) -> None:
    """docs/artifact.md followed with safetensors, zlib and numpy alone."""
    with safe_open(both / "compact" / "vqzoo.safetensors", framework="np") as file:
        metadata = json.loads(file.metadata()["vqzoo"])
        data, index = file.get_tensor("data").tobytes(), file.get_tensor("index").tobytes()
    assert metadata["required_features"] == ["compact"]
    contents = json.loads(zlib.decompress(index))
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}
    tensors, position = {}, 0
    for key, dtype, shape, *value in contents["tensors"]:
        if value:
            tensors[key] = np.full(shape, value[0], kinds[dtype])
            continue
        count = int(np.prod(shape, dtype=np.int64))
        tensors[key] = np.frombuffer(data, kinds[dtype], count, position).reshape(shape)
        position += tensors[key].nbytes
    assert position == len(data)
    plain = both / "plain" / "vqzoo.safetensors"
    with safe_open(plain, framework="np") as file:
        assert set(file.keys()) == set(tensors)
        for key, values in tensors.items():
            assert values.tobytes() == file.get_tensor(key).tobytes(), key
        expected = json.loads(file.metadata()["vqzoo"])
    assert contents["layers"] == expected["layers"]
    assert contents["aliases"] == expected["aliases"]


def unpacked(folder: Path) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """The metadata of a compact file, its data, and its index."""
    raw = (folder / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    parts = [header[name]["data_offsets"] for name in ("data", "index")]
    data, index = (raw[8 + length + begin : 8 + length + end] for begin, end in parts)
    return json.loads(header["__metadata__"]["vqzoo"]), data, json.loads(zlib.decompress(index))


def repacked(folder: Path, metadata: Any, data: bytes, index: bytes) -> None:
    """Write a compact file, and its checksum."""
    header = {
        "__metadata__": {"vqzoo": json.dumps(metadata)},
        "data": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]},
        "index": {
            "dtype": "U8",
            "shape": [len(index)],
            "data_offsets": [len(data), len(data) + len(index)],
        },
    }
    text = json.dumps(header).encode()
    reseal_bytes(folder, struct.pack("<Q", len(text)) + text + data + index)


def lie(value: Any, rng: random.Random) -> None:
    """Replace, remove or double something at any depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            value = inner
            continue
        change = rng.randrange(4)
        if change == 0:
            del value[key]
        elif change == 1 and type(inner) is int:
            value[key] = inner + rng.choice((-1, 1, 8))
        elif change == 2 and isinstance(value, list):
            value.insert(key, inner)
        else:
            value[key] = rng.choice(VALUES)
        return


def test_mutated_indices_are_refused_or_load(both: Path, tmp_path: Path) -> None:
    refusals: list[str] = []
    for case in range(80):
        rng = random.Random(case)
        mutated = Path(shutil.copytree(both / "compact", tmp_path / "a"))
        metadata, data, index = unpacked(mutated)
        lie(index["tensors"] if case % 4 else index, rng)
        repacked(mutated, metadata, data, zlib.compress(json.dumps(index).encode()))
        try:
            load(mutated)
        except ArtifactError as error:
            refusals.append(str(error))
        shutil.rmtree(mutated)
    assert len(refusals) > 40
    assert all(0 < len(text) < 2000 and "\n" not in text for text in refusals)


def test_flipped_bits_of_an_index_are_refused_or_load(both: Path, tmp_path: Path) -> None:
    mutated = Path(shutil.copytree(both / "compact", tmp_path / "a"))
    metadata, data, index = unpacked(mutated)
    stream = zlib.compress(json.dumps(index).encode())
    for case in range(40):
        rng = random.Random(case)
        flipped = bytearray(stream)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        repacked(mutated, metadata, data, bytes(flipped))
        with pytest.raises(ArtifactError):  # adler32 sees every flipped bit
            load(mutated)


LIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "huge constant": (
        lambda metadata, index: index["tensors"].append(["x", "F32", [1 << 33], 0.0]),
        "values together",
    ),
    "constant matrix": (
        lambda metadata, index: index["tensors"].append(["x", "F32", [2, 2], 0.0]),
        "only dense vectors",
    ),
    "constant part": (
        lambda metadata, index: index["tensors"].append(["fc.weight::x", "F32", [2], 0.0]),
        "only dense vectors",
    ),
    "integer for a float": (
        lambda metadata, index: index["tensors"].append(["x", "F32", [2], 1]),
        "cannot have the value 1",
    ),
    "too large an integer": (
        lambda metadata, index: index["tensors"].append(["x", "U8", [2], 256]),
        "cannot have the value 256",
    ),
    "text for a number": (
        lambda metadata, index: index["tensors"].append(["x", "U8", [2], "1"]),
        "cannot have the value '1'",
    ),
    "listed twice": (
        lambda metadata, index: index["tensors"].append(index["tensors"][-1]),
        "lists a tensor twice",
    ),
    "beyond the data": (
        lambda metadata, index: index["tensors"].append(["x", "F32", [2]]),
        "its index describes",
    ),
    "unknown dtype": (
        lambda metadata, index: index["tensors"].append(["x", "F4", [0]]),
        "has dtype 'F4'",
    ),
    "without a shape": (
        lambda metadata, index: index["tensors"].append(["x", "F32"]),
        "is malformed",
    ),
    "five fields": (
        lambda metadata, index: index["tensors"].append(["x", "F32", [0], 0.0, 1]),
        "without key, dtype and shape",
    ),
    "not a list": (lambda metadata, index: index.update(tensors=7), "without key, dtype and shape"),
    "layers twice": (
        lambda metadata, index: metadata.update(layers={}),
        "both in its header and in its index",
    ),
    "no aliases": (lambda metadata, index: index.pop("aliases"), "must have layers, aliases"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_named(name: str, both: Path, tmp_path: Path) -> None:
    forged = Path(shutil.copytree(both / "compact", tmp_path / "a"))
    metadata, data, index = unpacked(forged)
    change, message = LIES[name]
    change(metadata, index)
    repacked(forged, metadata, data, zlib.compress(json.dumps(index).encode()))
    with pytest.raises(ArtifactError, match=message):
        load(forged)


def test_bombs_are_refused_before_they_are_unpacked(both: Path, tmp_path: Path) -> None:
    forged = Path(shutil.copytree(both / "compact", tmp_path / "a"))
    metadata, data, _ = unpacked(forged)
    bomb = zlib.compress(b'{"tensors":[' + b" " * (1 << 28), 9)
    assert len(bomb) < 1 << 19
    repacked(forged, metadata, data, bomb)
    script = (
        "import resource, sys\n"
        "from vqzoo.artifact.reader import open_artifact\n"
        "from vqzoo.errors import ArtifactError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    open_artifact(sys.argv[1])\nexcept ArtifactError as error:\n    print(error)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "assert 'torch' not in sys.modules and grown < 120_000, grown\n"
    )
    done = subprocess.run([sys.executable, "-c", script, forged], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not one whole zlib stream" in done.stdout


def test_trailing_bytes_and_other_tensors_are_refused(both: Path, tmp_path: Path) -> None:
    forged = Path(shutil.copytree(both / "compact", tmp_path / "a"))
    metadata, data, index = unpacked(forged)
    repacked(forged, metadata, data, zlib.compress(json.dumps(index).encode()) + b"\0")
    with pytest.raises(ArtifactError, match="one whole zlib stream"):
        load(forged)
    plain = Path(shutil.copytree(both / "plain", tmp_path / "b"))
    raw = (plain / "vqzoo.safetensors").read_bytes()
    reseal_bytes(plain, raw.replace(b'required_features\\":[]', b'required_features\\":[1]'))
    with pytest.raises(ArtifactError):
        load(plain)


def test_a_run_and_everything_after_it(vqzoo: Vqzoo, tmp_path: Path) -> None:
    words = ["run", "test_resnet", "--weights", "random", "-m", "rtn", "--layers", "all"]
    assert vqzoo(*words, "--out", "plain").exit_code == 0
    result = vqzoo(*words, "--layout", "compact", "--out", "compact")
    assert result.exit_code == 0
    records = [
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("plain", "compact")
    ]
    assert "--layout compact" in records[1]["command"]
    assert records[1]["bytes"]["file"] < records[0]["bytes"]["file"] - 10_000
    shown = vqzoo("inspect", "compact")
    assert shown.exit_code == 0
    assert "compact" in shown.stdout
    assert vqzoo("export", "compact", "--to", "dense", "--out", "dense").exit_code == 0
    assert read_header(tmp_path / "dense" / "model.safetensors").tensors


def test_a_budget_counts_the_bytes_of_a_compact_file(vqzoo: Vqzoo, tmp_path: Path) -> None:
    words = ["run", "test_resnet", "--weights", "random", "--lambda", "1e-5"]
    assert vqzoo(*words, "--out", "small").exit_code == 0
    artifact = open_artifact(tmp_path / "small")
    assert artifact.layout == "compact"
    record = json.loads((tmp_path / "small" / "report.json").read_text())
    size = (tmp_path / "small" / "vqzoo.safetensors").stat().st_size
    assert [step["bytes"] for step in record["budget"]["steps"]] == [size]
