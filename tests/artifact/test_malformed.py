# ruff: noqa: E501 - the tables of lies have one line for each
"""Headers, configs and folders that no vqzoo wrote are refused in one line."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forging import Forgery, reseal_bytes
from refusals import copy_of, refused

import vqzoo
from vqzoo.errors import UsageError

pytestmark = pytest.mark.usefixtures("little_memory")


HEADERS: dict[str, Callable[[str], str]] = {
    "a duplicate tensor": lambda t: t.replace('"fc.bias":', '"fc.bias":{},"fc.bias":', 1),
    "duplicate metadata": lambda t: t.replace('"__metadata__":', '"__metadata__":{},"__metadata__":', 1),
    "a duplicate key in the metadata": lambda t: t.replace('\\"aliases\\":', '\\"aliases\\":{},\\"aliases\\":', 1),
    "another metadata key": lambda t: t.replace('"__metadata__":{', '"__metadata__":{"format":"pt",', 1),
    "no metadata": lambda t: t.replace('"__metadata__"', '"__metadata"', 1),
    "metadata that is no text": lambda t: t.replace('"__metadata__":{', '"__metadata__":{"x":1,', 1),
    "metadata that is no JSON": lambda t: t.replace('\\"aliases\\"', "aliases", 1),
    "NaN": lambda t: t.replace('\\"exponent\\":0', '\\"exponent\\":NaN', 1),
    "an infinite number": lambda t: t.replace('\\"exponent\\":0', '\\"exponent\\":1e999', 1),
    "a number of many digits": lambda t: t.replace('\\"exponent\\":0', '\\"exponent\\":' + "9" * 5000, 1),
    "a dtype that is a list": lambda t: t.replace('"dtype":"F32"', '"dtype":["F32"]', 1),
    "a shape that is text": lambda t: t.replace('"shape":[]', '"shape":""', 1),
    "a shape that is an object": lambda t: t.replace('"shape":[]', '"shape":{}', 1),
    "an entry that is text": lambda t: t.replace('"fc.bias":{', '"zz":"data_offsets","fc.bias":{', 1),
    "an entry too much": lambda t: t.replace('"fc.bias":{', '"fc.bias":{"more":1,', 1),
    "negative offsets": lambda t: t.replace('"data_offsets":[', '"data_offsets":[-', 1),
    "gigantic offsets": lambda t: t.replace('"data_offsets":[', '"data_offsets":[9999999999999999', 1),
    "an empty gigantic tensor": lambda t: t.replace('"fc.bias":{', '"zz":{"data_offsets":[0,0],"dtype":"F32","shape":[0,281474976710655,281474976710655]},"fc.bias":{', 1),
    "deep nesting": lambda t: "[" * 200_000,
    "deep metadata": lambda t: t.replace('\\"aliases\\":{}', '\\"aliases\\":' + "[" * 50_000 + "]" * 50_000, 1),
    "a list": lambda t: "[]",
    "nothing": lambda t: "",
    "no text": lambda t: "\x00\x01",
    "UTF-16": lambda t: t.encode("utf-16").decode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("lie", HEADERS)
def test_malformed_headers_are_refused(lie: str, whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    text = raw[8 : 8 + length].decode()
    changed = HEADERS[lie](text)
    assert changed != text, "the lie does not apply to this header"
    data = changed.encode("latin-1")
    reseal_bytes(folder, struct.pack("<Q", len(data)) + data + raw[8 + length :])
    refused(folder)


@pytest.mark.parametrize("claimed", [0, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_false_header_length_is_refused(claimed: int, whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    raw = (folder / "vqzoo.safetensors").read_bytes()
    reseal_bytes(folder, struct.pack("<Q", claimed) + raw[8:])
    refused(folder)


def test_overlapping_tensors_are_refused(forged: Forgery, tmp_path: Path) -> None:
    forged.seal(tmp_path / "a")
    forged.header["fc.bias"]["data_offsets"] = [0, 40]
    forged.seal(tmp_path / "a", relay=False)
    reseal_bytes(tmp_path / "a", (tmp_path / "a/vqzoo.safetensors").read_bytes())
    refused(tmp_path / "a")


CONFIGS: dict[str, Callable[[str], str]] = {
    "a duplicate key": lambda t: t.replace('"architecture"', '"architecture":"x","architecture"', 1),
    "an infinite number": lambda t: t.replace("{", '{"x":1e999,', 1),
    "NaN": lambda t: t.replace("{", '{"x":NaN,', 1),
    "another key": lambda t: t.replace("{", '{"x":1,', 1),
    "no block": lambda t: t.replace('"vqzoo"', '"other"', 1),
    "a block that is a list": lambda t: '{"vqzoo":[]}',
    "a list": lambda t: "[1]",
    "text": lambda t: '"vqzoo"',
    "deep nesting": lambda t: "[" * 100_000,
    "nested as deep as JSON allows": lambda t: t.replace("{", '{"x":' + "[" * 900 + "]" * 900 + ",", 1),
    "half a surrogate": lambda t: t.replace('"architecture": "', '"architecture": "\\ud800', 1),
    "no UTF-8": lambda t: "\xff" + t,
}  # fmt: skip


@pytest.mark.parametrize("lie", CONFIGS)
def test_malformed_configs_are_refused(lie: str, whole: Path, tmp_path: Path) -> None:
    folder = copy_of(whole, tmp_path)
    text = (folder / "config.json").read_text()
    changed = CONFIGS[lie](text)
    assert changed != text, "the lie does not apply to this config"
    (folder / "config.json").write_bytes(changed.encode("latin-1"))
    refused(folder)


def test_folders_that_are_not_artifacts_are_refused(whole: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", whole / "config.json"):
        with pytest.raises(UsageError, match="not a folder"):
            vqzoo.load(path)
    refused(tmp_path)
    folder = copy_of(whole, tmp_path)
    (folder / "vqzoo.safetensors").unlink()
    refused(folder)
    (folder / "vqzoo.safetensors").mkdir()
    refused(folder)
