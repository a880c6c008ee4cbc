"""`vqzoo import --from onnx`: weights that operators of the graph decode."""

import base64
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import vqzoo
from tests.importers.layouts import ARCHITECTURE
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.export import export
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

pytest.importorskip("onnxruntime")
import onnx

from tests.importers import onnx_graphs
from tests.importers.onnx_graphs import Array, Decoder, Graph


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "plain.onnx"
    onnx_graphs.export(path)
    return path


DECODERS: dict[str, tuple[Decoder, str, str]] = {
    "tensor": (onnx_graphs.bytes_of_a_tensor, "km", "all"),
    "rows": (onnx_graphs.bytes_of_rows, "rtn", "all"),
    "zeros": (onnx_graphs.bytes_of_rows_with_zeros, "km or rtn", "all"),
    "half rows": (onnx_graphs.half_bytes_of_rows, "rtn", "all"),
    "blocks": (onnx_graphs.bytes_of_blocks, "rtn", "fc.weight"),
    "nibbles of blocks": (onnx_graphs.nibbles_of_blocks, "rtn", "fc.weight"),
    "small floats": (onnx_graphs.small_floats, "km", "all"),
    "vectors": (onnx_graphs.vectors, "pq", "all"),
    "vectors down": (onnx_graphs.vectors_down, "pq", "fc.weight"),
    "nibbles": (onnx_graphs.nibbles, "km", "all"),
}


@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_what_onnxruntime_decodes(exported: Path, tmp_path: Path, name: str) -> None:
    decoder, method, which = DECODERS[name]
    graph = Graph(exported)
    weights = graph.weights()
    chosen = [w for w in weights if which in ("all", w) and np.prod(graph.shape(w)[1:]) % 4 == 0]
    for weight in chosen:
        graph.replace(weight, decoder)
    path, out = tmp_path / "small.onnx", tmp_path / "out"
    graph.save(path)
    import_file(path, "onnx", ARCHITECTURE, out)

    network = vqzoo.load(out)
    layers = open_artifact(out).metadata.layers
    keys = [key for key, tensor in network.state_dict().items() if tensor.dim() > 1]
    expected = dict(zip(weights, onnx_graphs.decoded(path, weights), strict=True))
    for key, weight in zip(keys, weights, strict=True):
        assert np.array_equal(network.get_parameter(key).numpy(), expected[weight]), key
        if weight in chosen:
            assert layers[key].code.method in method.split(" or ")
    assert len(layers) == len(chosen)
    with torch.no_grad():
        answers = network(onnx_graphs.images()).numpy()
    reference = onnx_graphs.logits(path)
    assert np.abs(answers - reference).max() <= 1e-4 * np.abs(reference).max()


def test_plain_weights_are_not_imported(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(VqzooError, match="has no compressed layer as onnx knows them"):
        import_file(exported, "onnx", ARCHITECTURE, tmp_path / "out")


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


class Listener(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def sum_of_two(graph: Graph, name: str, weight: Array) -> None:
    halves = [graph.add("low", weight / 2), graph.add("high", weight / 2)]
    graph.node("Add", halves, name)


def test_weights_that_are_no_codes_stay_dense_and_are_named(exported: Path, tmp_path: Path) -> None:
    graph, listener = Graph(exported), Listener()
    graph.replace("fc.weight", sum_of_two)
    graph.replace(graph.weights()[1], onnx_graphs.vectors)
    path, out = tmp_path / "small.onnx", tmp_path / "out"
    graph.save(path)
    made = import_file(path, "onnx", ARCHITECTURE, out, watcher=listener)
    assert made.layers == 1
    (line,) = listener.lines
    assert line.startswith("fc.weight is computed in a way that no method here has")
    (expected,) = onnx_graphs.decoded(path, ["fc.weight"])
    assert np.array_equal(vqzoo.load(out).get_parameter("fc.weight").detach().numpy(), expected)


def too_high(graph: Graph, name: str, weight: Array) -> None:
    book = graph.add("book", np.ones((3, 4), dtype=np.float32))
    codes = graph.add("codes", np.full(weight.shape[0] * weight.shape[1] // 4, 3))
    graph.node("Gather", [book, codes], name)


def huge(graph: Graph, name: str, weight: Array) -> None:
    one = graph.add("one", np.ones((1, 10**6), dtype=np.float32))
    two = graph.add("two", np.ones((10**6, 1), dtype=np.float32))
    graph.node("Mul", [one, two], name)


def unknown(graph: Graph, name: str, weight: Array) -> None:
    graph.node("Erf", [graph.add("values", weight)], name)


def other_shape(graph: Graph, name: str, weight: Array) -> None:
    graph.add(name, weight[:-1])


def impossible(graph: Graph, name: str, weight: Array) -> None:
    size = graph.add("size", np.array([7, 7]))
    graph.node("Reshape", [graph.add("values", weight), size], name)


BAD: dict[str, tuple[Decoder, str]] = {
    "codes": (too_high, "codes 3..3 for a codebook of 3 entries"),
    "size": (huge, r"fc.weight has the shape \(1000000, 1000000\), far larger"),
    "operator": (unknown, "the weight fc.weight is computed by Erf"),
    "shape": (other_shape, r"fc.weight has the shape \(999, 96\), fc.weight has \(1000, 96\)"),
    "reshape": (impossible, "Reshape cannot compute fc.weight: cannot reshape"),
}


@pytest.mark.parametrize("case", BAD)
def test_graphs_that_do_not_fit_are_refused(exported: Path, tmp_path: Path, case: str) -> None:
    decoder, message = BAD[case]
    graph = Graph(exported)
    graph.replace("fc.weight", decoder)
    graph.save(tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.onnx", "onnx", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_damaged_files_are_refused_in_one_line(exported: Path, tmp_path: Path) -> None:
    data, path = exported.read_bytes(), tmp_path / "bad.onnx"
    shutil.copy(exported, path)
    for damaged in (b"", data[:100], data[:-1000], bytes(1000)):
        path.write_bytes(damaged)
        with pytest.raises(VqzooError, match=r"bad\.onnx") as refused:
            import_file(path, "onnx", ARCHITECTURE, tmp_path / "out")
        assert "\n" not in str(refused.value)
