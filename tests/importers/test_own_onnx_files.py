"""`vqzoo import --from onnx`: what `vqzoo export --to onnx` wrote."""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.export import export
from vqzoo.network.import_file import import_file

pytest.importorskip("onnxruntime")
import onnx

METADATA = "vqzoo.network"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "features.0": ("km", {"k": 16}),
    "features.4": ("rq", {"d": 4, "k": 16, "stages": 2}),
    "features.8": ("deep-compression", {}),
    "features.11": ("diba", {"k": 16}),
    "features.14": ("prune", {"then": "km:k=16"}),
    "classifier.1": ("rtn", {"format": "int4", "per": "group", "group": 32}),
    "classifier.4": ("ecq", {"price": 1e-7}),
    "classifier.6": ("binary", {}),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact in which each layer has another method, and its export."""
    vqzoo.register_models()
    network = timm.create_model("alexnet_mini.fmnist", pretrained=True)
    network.get_buffer("features.5.num_batches_tracked").fill_((1 << 40) + 1)
    network.get_parameter("classifier.1.bias").data.zero_()  # the optimizer removes it
    folder = tmp_path_factory.mktemp("own")
    vqzoo.compress(network, METHODS).save(folder / "small", packing="bits")
    export(folder / "small", "onnx", folder / "exported")
    return folder / "small", folder / "exported/model.onnx"


def test_our_own_exports_come_back(own: tuple[Path, Path], tmp_path: Path) -> None:
    small, exported = own
    import_file(exported, "onnx", "alexnet_mini.fmnist", tmp_path / "back")
    before, after = open_artifact(small), open_artifact(tmp_path / "back")
    methods = {key: entry.code.method for key, entry in before.metadata.layers.items()}
    assert {k: entry.code.method for k, entry in after.metadata.layers.items()} == methods
    assert after.block.bytes <= 1.01 * before.block.bytes
    states = [vqzoo.load(folder).state_dict() for folder in (small, tmp_path / "back")]
    assert [
        key for key, tensor in states[0].items() if not torch.equal(states[1][key], tensor)
    ] == []
    assert states[1]["features.5.num_batches_tracked"] == (1 << 40) + 1


def test_without_its_metadata_an_export_is_read_by_its_operators(tmp_path: Path) -> None:
    vqzoo.register_models()
    network = timm.create_model("alexnet_mini.fmnist", pretrained=True)
    rules = {
        "features.*": ("km", {"k": 16}),
        "classifier.1": ("rtn", {"format": "int4", "per": "group", "group": 32}),
        "classifier.4": ("pq", {"d": 4, "k": 16}),
        "classifier.6": ("pq", {"d": 8, "k": 32, "scale": "none"}),
    }
    vqzoo.compress(network, rules, layers="all").save(tmp_path / "small", packing="bits")
    export(tmp_path / "small", "onnx", tmp_path / "exported")
    model = onnx.load(tmp_path / "exported/model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    import_file(tmp_path / "plain.onnx", "onnx", "alexnet_mini.fmnist", tmp_path / "back")
    before, after = (open_artifact(tmp_path / name) for name in ("small", "back"))
    methods = {key: entry.code.method for key, entry in before.metadata.layers.items()}
    assert {k: entry.code.method for k, entry in after.metadata.layers.items()} == methods
    states = [vqzoo.load(tmp_path / name).state_dict() for name in ("small", "back")]
    differing = [
        key for key, tensor in states[0].items() if not torch.equal(states[1][key], tensor)
    ]
    assert all(key.endswith("num_batches_tracked") for key in differing)


def test_files_of_earlier_versions_say_the_same_in_plain_text(
    own: tuple[Path, Path], tmp_path: Path
) -> None:
    model = onnx.load(own[1])
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA]
    entry.value = zlib.decompress(base64.b64decode(entry.value)).decode()
    onnx.save(model, tmp_path / "earlier.onnx")
    for name, path in (("now", own[1]), ("earlier", tmp_path / "earlier.onnx")):
        import_file(path, "onnx", "alexnet_mini.fmnist", tmp_path / name)
    first, second = (tmp_path / name / "vqzoo.safetensors" for name in ("now", "earlier"))
    assert open_artifact(first.parent).block.bytes == open_artifact(second.parent).block.bytes
    states = [vqzoo.load(path.parent).state_dict() for path in (first, second)]
    assert all(torch.equal(states[1][key], tensor) for key, tensor in states[0].items())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact of many small layers, and its export, in which they share functions."""
    vqzoo.register_models()
    network = timm.create_model("mobilenet_mini.fmnist", pretrained=True)
    folder = tmp_path_factory.mktemp("functions")
    rules = {
        "blocks.*.conv_pw": ("pq", {"d": 2, "k": 16}),
        "blocks.*.conv_dw": ("km", {"k": 8}),
        "blocks.*.conv_pwl": ("km", {"k": 8}),
    }
    vqzoo.compress(network, rules).save(folder / "small", packing="bits", rest="float16")
    export(folder / "small", "onnx", folder / "exported")
    return folder / "small", folder / "exported/model.onnx"


@pytest.mark.parametrize("metadata", [True, False])
def test_functions_are_read(small: tuple[Path, Path], tmp_path: Path, metadata: bool) -> None:
    model = onnx.load(small[1])
    assert {function.name for function in model.functions} >= {"km", "pq"}
    if not metadata:
        del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    import_file(tmp_path / "model.onnx", "onnx", "mobilenet_mini.fmnist", tmp_path / "back")
    methods = [
        {key: entry.code.method for key, entry in open_artifact(folder).metadata.layers.items()}
        for folder in (small[0], tmp_path / "back")
    ]
    assert methods[0] == methods[1]
    states = [vqzoo.load(folder).state_dict() for folder in (small[0], tmp_path / "back")]
    differing = [
        key for key, tensor in states[0].items() if not torch.equal(states[1][key], tensor)
    ]
    assert all(key.endswith("num_batches_tracked") for key in differing)


def calls_another(model: onnx.ModelProto) -> None:
    first, second = model.functions[:2]
    first.node[-1].domain, first.node[-1].op_type = second.domain, second.name


def many_operators(model: onnx.ModelProto) -> None:
    (called,) = [entry for entry in model.functions if entry.name == "km"]
    called.node.extend([called.node[-1]] * 100_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [(calls_another, "calls others, not imported"), (many_operators, r"stand for \d+ operators")],
)
def test_hostile_functions_are_refused(
    small: tuple[Path, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    message: str,
) -> None:
    model = onnx.load(small[1])
    del model.metadata_props[:]
    change(model)
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.onnx", "onnx", "mobilenet_mini.fmnist", tmp_path / "out")
    assert "\n" not in str(refused.value)


def deflated(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize("counters", [None, 7])
def test_one_number_stands_for_all_counters_of_batch_norms(
    own: tuple[Path, Path], tmp_path: Path, counters: int | None
) -> None:
    model = onnx.load(own[1])
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA]
    content = json.loads(zlib.decompress(base64.b64decode(entry.value)))
    content["counters"] = counters
    kept = {key: value for key, value in content.items() if value is not None}
    entry.value = deflated(json.dumps(kept).encode())
    onnx.save(model, tmp_path / "other.onnx")
    import_file(tmp_path / "other.onnx", "onnx", "alexnet_mini.fmnist", tmp_path / "back")
    state = vqzoo.load(tmp_path / "back").state_dict()
    counts = [tensor for key, tensor in state.items() if key.endswith("num_batches_tracked")]
    assert counts == [counters or 0] * 5


def without_initializer(content: dict[str, Any]) -> None:
    content["codes"]["features.0.weight"]["parts"]["codebook"]["values"] = "nothing"


def too_few_values(content: dict[str, Any]) -> None:
    content["tensors"]["features.1.weight"] = [1.0, 2.0]


def huge_shape(content: dict[str, Any]) -> None:
    content["codes"]["features.0.weight"]["parts"]["codes"]["shape"] = [10**6, 10**9]


def huge_table(content: dict[str, Any]) -> None:
    table = content["codes"]["features.0.weight"]["parts"]["codebook"]
    table |= {"shape": [10**6, 10**6], "values": [1.0]}


def too_many_planes(content: dict[str, Any]) -> None:
    content["codes"]["features.0.weight"]["parts"]["codes"]["planes"] *= 2


def inexact(content: dict[str, Any]) -> None:
    content["codes"]["features.0.weight"]["parts"]["codebook"]["values"] = [0.1] * 16


def unknown_method(content: dict[str, Any]) -> None:
    content["codes"]["features.0.weight"]["method"] = "kn"


BAD_METADATA: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no such initializer": (without_initializer, "is in 'nothing', which is no initializer"),
    "too few values": (too_few_values, r"features\.1\.weight has 2 values"),
    "terabytes of one value": (huge_table, "part 'codebook' has 1 values, not those of"),
    "a huge shape": (huge_shape, r"is no plane of 1000000000000000 codes"),
    "planes twice": (too_many_planes, "has 2 planes"),
    "values beyond float16": (inexact, r"has values that torch\.float16 cannot hold"),
    "few counters": (
        lambda content: content.update(counters=[1]),
        "1 counters of batch norms, not 5",
    ),
    "a counter below zero": (lambda content: content.update(counters=-1), "malformed at 'counters"),
    "a fraction": (lambda content: content.update(counters=[0.5] * 5), "malformed at 'counters"),
    "another field": (lambda content: content.update(more=1), "malformed at 'more'"),
    "an unknown method": (unknown_method, "no method called 'kn'"),
    "an unknown tensor": (
        lambda content: content["tensors"].update(extra="x"),
        "has extra, which the network does not have",
    ),
}


@pytest.mark.parametrize("case", BAD_METADATA)
def test_metadata_that_does_not_fit_is_refused(
    own: tuple[Path, Path], tmp_path: Path, case: str
) -> None:
    change, message = BAD_METADATA[case]
    model = onnx.load(own[1])
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA]
    content = json.loads(zlib.decompress(base64.b64decode(entry.value)))
    change(content)
    entry.value = deflated(json.dumps(content).encode())
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.onnx", "onnx", "alexnet_mini.fmnist", tmp_path / "out")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not in base64", "cannot be inflated"),
        (base64.b64encode(b"not deflated").decode(), "cannot be inflated"),
        (deflated(b"{}")[:-8], "too long or cut off"),
        (deflated(b" " * ((64 << 20) + 1)), "too long or cut off"),
        (deflated(b"\xff"), "cannot be inflated"),
    ],
    ids=["no base64", "not deflated", "cut off", "too long", "no text"],
)
def test_metadata_that_cannot_be_inflated_is_refused(
    own: tuple[Path, Path], tmp_path: Path, text: str, message: str
) -> None:
    model = onnx.load(own[1])
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA]
    entry.value = text
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message):
        import_file(tmp_path / "bad.onnx", "onnx", "alexnet_mini.fmnist", tmp_path / "out")
