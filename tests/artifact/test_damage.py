"""A damaged artifact is refused in one line, wherever the damage is."""

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from forging import reseal_bytes
from refusals import copy_of, refused, refused_or_the_same, state_or_reason
from torch import Tensor

pytestmark = pytest.mark.usefixtures("little_memory")


def test_truncated_weights_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    draw = random.Random(0)
    lengths = [0, 1, 7, 8, 9, 100, len(raw) - 1, *(draw.randrange(len(raw)) for _ in range(12))]
    for length in lengths:
        (folder / "vqzoo.safetensors").write_bytes(raw[:length])
        refused(folder)
        reseal_bytes(folder, raw[:length])
        refused(folder)
    reseal_bytes(folder, raw + b"\0")
    refused(folder)


def test_truncated_configs_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "config.json").read_bytes()
    for length in range(0, len(raw) - 2, max(1, len(raw) // 25)):
        (folder / "config.json").write_bytes(raw[:length])
        refused(folder)


def bit_flips(raw: bytes, start: int, end: int, count: int, seed: int) -> Iterator[bytes]:
    draw = random.Random(seed)
    for _ in range(count):
        at = draw.randrange(start, end)
        changed = bytearray(raw)
        changed[at] ^= 1 << draw.randrange(8)
        yield bytes(changed)


def test_flipped_bits_in_the_weights_file_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    for changed in bit_flips(raw, 0, len(raw), 20, seed=1):
        (folder / "vqzoo.safetensors").write_bytes(changed)
        refused(folder)


def test_flipped_bits_in_a_header_with_a_correct_checksum(
    whole: Path, tmp_path: Path, original: dict[str, Tensor]
) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    layers = raw.index(b"required_features", 0, 8 + length)
    for start, end, count in ((0, 8 + length, 60), (0, layers, 60), (0, 8, 10)):
        for changed in bit_flips(raw, start, end, count, seed=start + end):
            reseal_bytes(folder, changed)
            state = state_or_reason(folder)
            if isinstance(state, str):
                assert "\n" not in state
            else:  # an option on record, an exponent: what was sealed is what is loaded
                assert state.keys() == original.keys()


def test_flipped_bits_in_parts_fail_their_own_checksum(whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    for name, entry in header.items():
        if "::" not in name:
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        for changed in bit_flips(raw, begin, end, 4, seed=begin):
            reseal_bytes(folder, changed)
            assert "checksum" in refused(folder)


def test_flipped_bits_in_the_config(
    whole: Path, tmp_path: Path, original: dict[str, Tensor]
) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "config.json").read_bytes()
    outcomes = []
    for changed in bit_flips(raw, 0, len(raw), 60, seed=2):
        (folder / "config.json").write_bytes(changed)
        outcomes.append(refused_or_the_same(folder, original))
    assert sum(outcomes) > 30
