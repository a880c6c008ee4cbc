"""`vqzoo import --from onnx`: weights that operators of the graph decode."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vqzoo
from tests.importers.layouts import ARCHITECTURE
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

pytest.importorskip("onnxruntime")

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
    "half shorts": (onnx_graphs.half_shorts, "km or rtn", "fc.weight"),
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
