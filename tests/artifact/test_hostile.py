# ruff: noqa: E501 - the tables of lies have one line for each
"""Anyone may have written an artifact: it loads to exactly its network, or is refused in one line.

Checksums prove nothing here: whoever changes a file can compute them anew, and so do these tests.
"""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forging import Forgery, reseal_bytes, take_apart
from torch import Tensor

import vqzoo
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.plugin.manager import installed_plugins

GIB = 1 << 30


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Limit the memory, so that an allocation that would fill it fails at once."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * GIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact of one layer, with a tail and row scales."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    folder = tmp_path_factory.mktemp("hostile") / "whole"
    vqzoo.compress(model, "pq", layers="dense", k=12, d=5, scale="row").save(folder)
    return folder


@pytest.fixture(scope="module")
def original(whole: Path) -> dict[str, Tensor]:
    return vqzoo.load(whole).state_dict()


@pytest.fixture
def forged(whole: Path) -> Forgery:
    return take_apart(whole)


def refused(folder: Path) -> str:
    """Load an artifact that must be refused, and return the one line that says why."""
    with pytest.raises(ArtifactError) as caught:
        vqzoo.load(folder)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 1000
    return text


def state_or_reason(folder: Path) -> dict[str, Tensor] | str:
    """The state dict of the network, or the line that says why the artifact was refused."""
    try:
        return vqzoo.load(folder).state_dict()
    except ArtifactError as error:
        return str(error)


def refused_or_the_same(folder: Path, original: dict[str, Tensor]) -> bool:
    """Whether an artifact was refused; if not, check that it loads to exactly the original."""
    state = state_or_reason(folder)
    if isinstance(state, str):
        assert "\n" not in state
        return True
    assert state.keys() == original.keys()
    assert all(torch.equal(state[key], original[key]) for key in state)
    return False


def test_the_forger_changes_nothing_by_itself(
    forged: Forgery, tmp_path: Path, original: dict[str, Tensor]
) -> None:
    assert not refused_or_the_same(forged.seal(tmp_path / "a"), original)


def copy_of(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


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


Change = Callable[[Forgery], Any]


def codes(forged: Forgery) -> dict[str, Any]:
    part: dict[str, Any] = forged.layer()["code"]["parts"]["codes"]
    return part


def set_path(*path: Any) -> Change:
    """Set a value in the metadata of the first layer; all arguments but the last are its path."""

    def change(forged: Forgery) -> None:
        place: Any = forged.layer()
        for step in path[:-2]:
            place = place[step]
        place[path[-2]] = path[-1]

    return change


def set_metadata(name: str, value: Any) -> Change:
    return lambda forged: forged.metadata.__setitem__(name, value)


def set_config(name: str, value: Any) -> Change:
    return lambda forged: forged.config.__setitem__(name, value)


def set_cfg(name: str, value: Any) -> Change:
    return lambda forged: forged.config["pretrained_cfg"].__setitem__(name, value)


def set_block(name: str, value: Any) -> Change:
    return lambda forged: forged.block.__setitem__(name, value)


def alias(name: str, target: str) -> Change:
    return lambda forged: forged.metadata["aliases"].__setitem__(name, target)


def fill(part: str, pattern: bytes) -> Change:
    """Overwrite the bytes of a part."""

    def change(forged: Forgery) -> None:
        name = f"{forged.key()}::{part}"
        size = len(forged.data[name])
        forged.data[name] = (pattern * size)[:size]

    return change


def nested(depth: int) -> Change:
    """Nest a code in child codes."""

    def change(forged: Forgery) -> None:
        code = forged.layer()["code"]
        for _ in range(depth):
            code = {**code, "parts": {}, "children": {"inner": code}}
        forged.layer()["code"] = code

    return change


def huge_child(forged: Forgery) -> None:
    code = forged.layer()["code"]
    child = {**code, "shape": [1 << 20, 1 << 20], "parts": {}}
    code["children"] = {"inner": child}


def zero_inner_factor(forged: Forgery) -> None:
    """A product of empty factors, m × 0 times 0 × n: no bytes are stored, but m × n allocated."""
    _other_code(
        forged,
        "svd",
        {
            "left": ("F16", "float16", [1 << 18, 0], b""),
            "right": ("F16", "float16", [0, 1 << 18], b""),
        },
    )


def broadcast_binary(forged: Forgery) -> None:
    """Signs in one row, and scales for very many rows."""
    _other_code(
        forged,
        "binary",
        {
            "codes": ("U8", [1, 1 << 18], b"\0" * (1 << 15)),
            "scale": ("F16", "float16", [1 << 18], b"\0" * (1 << 19)),
        },
    )


def wide_group(forged: Forgery) -> None:
    m, n = forged.layer()["view"]
    _other_code(
        forged,
        "rtn",
        {
            "codes": ("U8", [m, n], b"\0" * (m * n // 8)),
            "scale": ("F16", "float16", [m, 1], b"\0" * 2 * m),
        },
        {"group": 1 << 40},
    )


def _other_code(
    forged: Forgery, method: str, parts: dict[str, Any], facts: dict[str, Any] | None = None
) -> None:
    """Replace the first layer's code."""
    key, code = forged.key(), forged.layer()["code"]
    for name in [name for name in forged.data if name.startswith(key + "::")]:
        forged.drop_tensor(name)
    code |= {"method": method, "parts": {}, "facts": facts or {}}
    entry = installed_plugins().quantizers.get(method)
    code |= {"method_version": entry.item.version, "plugin": entry.origin.distribution}
    for name, (dtype, *rest) in parts.items():
        *kind, shape, data = rest
        if kind:
            spec = {"kind": "floats", "dtype": kind[0], "shape": shape, "exponent": 0}
            forged.set_tensor(f"{key}::{name}", dtype, shape, data)
        else:
            spec = {"kind": "indices", "shape": shape, "cardinality": 2, "packing": "bits"}
            spec["packing_version"] = "1"
            forged.set_tensor(f"{key}::{name}", dtype, [len(data)], data)
        code["parts"][name] = spec


LIES: dict[str, Change] = {
    "indices past the codebook": fill("codes", b"\xff"),
    "NaN in the codebook": fill("codebook", b"\xff"),
    "infinity in the scales": fill("scale", b"\x00\x7c"),
    "a larger cardinality": lambda f: codes(f).update(cardinality=1 << 16),
    "a smaller cardinality": lambda f: codes(f).update(cardinality=2),
    "a cardinality of the same width": lambda f: codes(f).update(cardinality=16),
    "no cardinality": lambda f: codes(f).update(cardinality=0),
    "a cardinality past 16 bits": lambda f: codes(f).update(cardinality=(1 << 16) + 1),
    "a true cardinality": lambda f: codes(f).update(cardinality=True),
    "a fractional cardinality": lambda f: codes(f).update(cardinality=12.5),
    "a negative shape": lambda f: codes(f).update(shape=[-1, 10]),
    "a shape of too many codes": lambda f: codes(f).update(shape=[1 << 30, 1 << 3]),
    "a gigantic shape": lambda f: codes(f).update(shape=[1 << 34] * 8),
    "an empty gigantic shape": lambda f: codes(f).update(shape=[0] + [1 << 34] * 7),
    "codes of another shape": lambda f: codes(f).update(shape=codes(f)["shape"][::-1]),
    "flat codes": lambda f: codes(f).update(shape=[190]),
    "another packing": lambda f: codes(f).update(packing="zip"),
    "another packing version": lambda f: codes(f).update(packing_version="2"),
    "an unknown kind": lambda f: codes(f).update(kind="bytes"),
    "floats where codes are": lambda f: codes(f).update(kind="floats", dtype="float16", exponent=0),
    "an exponent past all bounds": set_path("code", "parts", "scale", "exponent", 5000),
    "an exponent that overflows": set_path("code", "parts", "scale", "exponent", 300),
    "another float dtype": set_path("code", "parts", "codebook", "dtype", "float32"),
    "an unknown dtype": set_path("code", "parts", "codebook", "dtype", "float8"),
    "an unknown method": set_path("code", "method", "no-such-method"),
    "a method of another plugin's version": set_path("code", "method_version", "99"),
    "a method that would be imported": set_path("code", "method", "os:system"),
    "a method with control characters": set_path("code", "method", "\x1b[31mred\n"),
    "another method": set_path("code", "method", "km"),
    "a sub-vector length of 0": set_path("code", "facts", "d", 0),
    "a negative sub-vector length": set_path("code", "facts", "d", -5),
    "a sub-vector length of 2^60": set_path("code", "facts", "d", 1 << 60),
    "a sub-vector length in words": set_path("code", "facts", "d", "five"),
    "a fractional sub-vector length": set_path("code", "facts", "d", 5.5),
    "no facts": set_path("code", "facts", {}),
    "another axis": set_path("code", "facts", "axis", "diagonal"),
    "a nested fact": set_path("code", "facts", "d", [5]),
    "no parts": set_path("code", "parts", {}),
    "a part less": lambda f: f.layer()["code"]["parts"].pop("codebook"),
    "a part that is not stored": set_path("code", "parts", "more", {"kind": "floats", "shape": [1], "dtype": "float16", "exponent": 0}),
    "a part with a wicked name": set_path("code", "parts", "../x", {"kind": "floats", "shape": [1], "dtype": "float16", "exponent": 0}),
    "a view of another shape": set_path("view", [1, 960]),
    "a code of another shape": set_path("code", "shape", [96, 10]),
    "another weight shape": set_path("shape", [96, 10]),
    "a weight without dimensions": set_path("shape", []),
    "an unknown weight dtype": set_path("dtype", "complex64"),
    "a huge child": huge_child,
    "codes nested 3 deep": nested(3),
    "codes nested 300 deep": nested(300),
    "a product of nothing": zero_inner_factor,
    "signs that are broadcast": broadcast_binary,
    "groups wider than the memory": wide_group,
    "a newer format": set_metadata("format_version", 2),
    "a newer format in the config": set_block("format_version", 2),
    "no format": set_metadata("format_version", None),
    "a format in words": set_metadata("format_version", "1"),
    "a true format": set_metadata("format_version", True),
    "a required feature": set_metadata("required_features", ["entropy-coding"]),
    "required features in words": set_metadata("required_features", "all"),
    "layers that are a list": set_metadata("layers", []),
    "no layers": set_metadata("layers", {}),
    "an alias to nowhere": alias("fc.copy", "fc.gone"),
    "an alias to a part": lambda f: alias("fc.bias", f.key() + "::codes")(f),
    "an alias of what is stored": alias("fc.bias", "bn1.bias"),
    "an alias of a layer": lambda f: alias(f.key(), "fc.bias")(f),
    "an alias of itself": alias("fc.bias", "fc.bias"),
    "an alias that no network has": alias("no\nsuch\x1bthing", "fc.bias"),
    "a tensor that no network has": lambda f: f.set_tensor("x\ny", "F32", [1], b"abcd"),
    "a part of no layer": lambda f: f.set_tensor("fc.bias::codes", "U8", [1], b"a"),
    "a layer stored twice": lambda f: f.set_tensor(f.key(), "F32", [10, 96], b"\0" * 3840),
    "a tensor less": lambda f: f.drop_tensor("fc.bias"),
    "a tensor of another shape": lambda f: f.set_tensor("fc.bias", "F32", [2, 5], b"\0" * 40),
    "a tensor of another dtype": lambda f: f.set_tensor("fc.bias", "I32", [10], b"\0" * 40),
    "an unsigned tensor": lambda f: f.set_tensor("fc.bias", "U32", [10], b"\0" * 40),
    "codes that are no bytes": lambda f: f.header[f.key() + "::codes"].update(dtype="I8"),
    "an unknown architecture": set_config("architecture", "no_such_net"),
    "another architecture": set_config("architecture", "test_vit"),
    "an architecture with a tag": set_config("architecture", "test_resnet.r160_in1k"),
    "an architecture from the Hub": set_config("architecture", "hf-hub:timm/test_resnet.r160_in1k"),
    "an architecture from a folder": set_config("architecture", "local-dir:/tmp"),
    "an architecture that is a list": set_config("architecture", ["test_resnet"]),
    "no architecture": lambda f: f.config.pop("architecture"),
    "other classes": set_config("num_classes", 11),
    "very many classes": set_config("num_classes", 10**9),
    "classes in words": set_config("num_classes", "ten"),
    "no classes": lambda f: f.config.pop("num_classes"),
    "an unknown model argument": set_config("model_args", {"pretrained_cfg": {"file": "/etc/passwd"}}),
    "a checkpoint path": set_config("model_args", {"checkpoint_path": "/etc/passwd"}),
    "an argument that the factory lacks": set_config("model_args", {"img_size": 64}),
    "a model argument out of bounds": set_config("model_args", {"in_chans": 1 << 20}),
    "a nested model argument": set_config("model_args", {"in_chans": [3]}),
    "model arguments that are a list": set_config("model_args", [1]),
    "another number of channels": set_config("model_args", {"in_chans": 1000}),
    "an input size past all bounds": set_cfg("input_size", [3, 10**6, 10**6]),
    "an input size in words": set_cfg("input_size", "large"),
    "a mean in words": set_cfg("mean", "grey"),
    "another file": set_block("file", "../../etc/passwd"),
    "another method on record": set_block("method", "\x1b[31mred"),
    "other weights on record": set_block("weights", "random"),
    "a checksum of the record that is none": set_metadata("record_sha256", "mine"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_whatever_the_checksums(lie: str, forged: Forgery, tmp_path: Path) -> None:
    LIES[lie](forged)
    refused(forged.seal(tmp_path / "a"))


HARMLESS: dict[str, Change] = {
    "an unknown key of a layer": set_path("invented_later", 1),
    "an unknown key of a code": set_path("code", "invented_later", {"x": []}),
    "an unknown key of a part": lambda f: codes(f).update(invented_later=1),
    "an unknown key of the metadata": set_metadata("invented_later", [1]),
    "an unknown key of the block": set_block("invented_later", 1),
    "no checksum of the record": lambda f: f.metadata.pop("record_sha256"),
    "another option on record": set_path("options", "k", 99),
    "a preprocessing that names code": set_cfg("custom_load", "os.system"),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_harmless_changes_are_ignored(
    change: str, forged: Forgery, tmp_path: Path, original: dict[str, Tensor]
) -> None:
    HARMLESS[change](forged)
    assert not refused_or_the_same(forged.seal(tmp_path / "a"), original)


def test_config_entries_that_name_code_or_files_do_not_reach_the_network(
    forged: Forgery, tmp_path: Path
) -> None:
    cfg = forged.config["pretrained_cfg"]
    cfg |= {"custom_load": True, "file": "/etc/passwd", "state_dict": {"a": 1}, "source": "hf-hub"}
    loaded = vqzoo.load(forged.seal(tmp_path / "a"))
    taken = getattr(loaded, "pretrained_cfg")  # noqa: B009 - not in nn.Module's declaration
    assert "state_dict" not in taken
    assert taken.get("custom_load") is not True
    assert taken.get("file") != "/etc/passwd"


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
