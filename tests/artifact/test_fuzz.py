"""Mutated artifacts: each is refused in one line, or loads to what it should be.

`VQZOO_FUZZ=20000 pytest tests/artifact/test_fuzz.py` tries as many; the suite takes a sample. A
failing case is named by its number, which is the seed of its mutation.
"""

import json
import os
import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forging import Forgery, reseal_bytes, take_apart
from torch import Tensor, nn

import vqzoo
from vqzoo.errors import ArtifactError

CASES = int(os.environ.get("VQZOO_FUZZ", "160"))
METHODS: dict[str, dict[str, Any]] = {
    "pq": {"k": 12, "d": 5, "scale": "row"},
    "km": {"k": 12, "scale": "row"},
    "rq": {"k": 8, "d": 6},
    "binary": {"scale": "row"},
    "svd": {"rank": 3},
    "rtn": {"format": "int4"},
    "diba": {"k": 6},
    "deep-compression": {"density": 0.3, "bits": 3},
    "prune": {"density": 0.3, "then": "pq:k=4,d=2"},
}
VALUES: list[Any] = [
    -1, 0, 1, 2, 7, 255, 65536, 65537, 1 << 31, 1 << 34, (1 << 34) + 1, 1 << 63, 10**40, 0.5, 1e308,
    True, None, "", "pq", "x" * 300, "../../etc/passwd", "\x1b[31m", "f" * 64, [], [0],
    [1 << 33] * 8, {}, {"a": {}}, "float32", "indices", "floats", "U8", "F64",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """What would fill the memory fails at once instead."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, nn.Module]]:
    """Small artifacts of every built-in method, and the networks that they hold."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    folder = tmp_path_factory.mktemp("fuzz")
    for method, options in METHODS.items():
        vqzoo.compress(model, method, layers="dense", **options).save(folder / method)
    return [(folder / method, vqzoo.load(folder / method)) for method in METHODS]


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def move_bytes(data: bytearray, rng: random.Random) -> None:
    begin = rng.randrange(len(data))
    size = rng.choice((1, 4, 64, 4096))
    piece = data[begin : begin + size]
    change = rng.randrange(5)
    if change == 0:
        del data[begin:]
    elif change == 1:
        del data[begin : begin + size]
    elif change == 2:
        data[begin:begin] = piece
    elif change == 3:
        data[begin : begin + size] = bytes(len(piece))
    else:
        data += rng.randbytes(size)


def damage(folder: Path, rng: random.Random) -> None:
    """Change a file, and leave the checksums alone."""
    name = rng.choice(("vqzoo.safetensors", "vqzoo.safetensors", "config.json"))
    data = bytearray((folder / name).read_bytes())
    rng.choice((flip_bits, move_bytes))(data, rng)
    (folder / name).write_bytes(data)


def forge_json(folder: Path, rng: random.Random) -> None:
    """Lie somewhere in the JSON of header, metadata or config, and compute every checksum."""
    forged = take_apart(folder)
    for _ in range(rng.choice((1, 1, 1, 2))):
        which = rng.choice(("metadata", "metadata", "metadata", "header", "config"))
        lie(getattr(forged, which), rng)
    seal(forged, folder)


def lie(value: Any, rng: random.Random) -> None:
    """Replace, remove, rename or duplicate one value, at any depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            value = inner
            continue
        change = rng.randrange(5)
        if change == 0:
            del value[key]
        elif change == 1 and isinstance(value, dict):
            value[rng.choice(("extra", "", "codes", "codebook", "fc.weight"))] = inner
        elif change == 2 and type(inner) is int:
            value[key] = inner + rng.choice((-1, 1, 8, -inner - 1))
        elif change == 3:
            value[key] = value[rng.choice(keys)]
        else:
            value[key] = rng.choice(VALUES)
        return


def forge_tensor(folder: Path, rng: random.Random) -> None:
    """Other bytes in a tensor, or another dtype, shape or number of bytes, all checksums right."""
    forged = take_apart(folder)
    name = rng.choice([name for name in forged.data if "::" in name] + list(forged.data)[:4])
    data = bytearray(forged.data[name])
    change = rng.randrange(4)
    if change == 0 and data:
        flip_bits(data, rng)
    elif change == 1:
        data = bytearray(rng.choice((b"\xff", b"\x00", b"\x7f"))) * len(data)
    elif change == 2:
        data = bytearray(rng.randbytes(len(data)))
    else:
        data += rng.randbytes(rng.choice((1, 2, 16)))
        forged.header[name]["shape"] = [len(data)]
        forged.header[name]["dtype"] = "U8"
    forged.data[name] = bytes(data)
    seal(forged, folder)


def forge_header(folder: Path, rng: random.Random) -> None:
    """Flipped bits in the raw header, and the right checksum for the file."""
    raw = bytearray((folder / "vqzoo.safetensors").read_bytes())
    head = raw[: 8 + int.from_bytes(raw[:8], "little")]
    flip_bits(head, rng)
    reseal_bytes(folder, bytes(head) + bytes(raw[len(head) :]))


def seal(forged: Forgery, folder: Path) -> None:
    """Seal as far as the lies let it: what cannot be laid out anew is written as it is."""
    try:
        forged.seal(folder)
    except (KeyError, TypeError, AttributeError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        raise Unsealable from None


class Unsealable(Exception):
    """The lie broke the forger's own tools: there is nothing to read."""


def states_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


MUTATIONS: dict[str, Callable[[Path, random.Random], None]] = {
    "damage": damage,
    "forge_json": forge_json,
    "forge_tensor": forge_tensor,
    "forge_header": forge_header,
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_mutated_artifacts(
    kind: str, originals: list[tuple[Path, nn.Module]], tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    for case in range(CASES // len(MUTATIONS)):
        rng = random.Random(f"{kind} {case}")
        folder, network = rng.choice(originals)
        mutated = Path(shutil.copytree(folder, tmp_path / "a"))
        try:
            MUTATIONS[kind](mutated, rng)
            loaded = vqzoo.load(mutated)
        except Unsealable:
            outcomes["unsealable"] += 1
        except ArtifactError as error:
            outcomes["refused" if told_in_one_line(error) else f"told badly: {error}"] += 1
        except BaseException as error:
            raise AssertionError(f"{kind} case {case}: {type(error).__name__}: {error}") from error
        else:
            expected = network.state_dict()
            found = loaded.state_dict()
            shapes = {key: (value.shape, value.dtype) for key, value in found.items()}
            assert shapes == {k: (v.shape, v.dtype) for k, v in expected.items()}, (kind, case)
            if kind == "damage":
                assert states_equal(found, expected), (kind, case)
                assert json_equal(loaded.pretrained_cfg, network.pretrained_cfg), (kind, case)
            outcomes["loaded"] += 1
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
    assert set(outcomes) <= {"refused", "loaded", "unsealable"}, outcomes
    assert outcomes["refused"] > 0, outcomes
    assert outcomes["unsealable"] < outcomes["refused"], outcomes
    print(kind, dict(outcomes))


def told_in_one_line(error: ArtifactError) -> bool:
    return 0 < len(str(error)) < 2000 and "\n" not in str(error)


def json_equal(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
