"""`vqzoo import --from onnx`: files that onnxruntime's own quantizers write."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization import matmul_nbits_quantizer as nbits
from onnxruntime.quantization.preprocess import quant_pre_process

Array = NDArray[Any]
SIZES = {"test_vit": 160, "test_resnet": 64}
IMAGES = {
    size: np.random.default_rng(1).normal(size=(1, 3, size, size)).astype(np.float32)
    for size in SIZES.values()
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of networks with random weights, of which no two tensors are equal; and these as
    onnxruntime prepares them for its quantizers."""
    folder, paths = tmp_path_factory.mktemp("plain"), {}
    for network, size in SIZES.items():
        model = timm.create_model(network).eval()
        generator = torch.Generator().manual_seed(0)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
        path = paths[network] = folder / f"{network}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.zeros(1, 3, size, size),), str(path), dynamo=False)
        prepared = paths[f"{network} prepared"] = folder / f"{network}.prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    return paths


def answers(path: Path) -> Array:
    """What onnxruntime answers on a random image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: IMAGES[entry.shape[2]]})[0]


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    """The constants of a file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def products_with_unit_vectors(model: onnx.ModelProto) -> Iterator[Array]:
    """The weights (N, K) that onnxruntime multiplies by in each MatMulNBits."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "MatMulNBits"]:
        (columns,) = [entry.i for entry in node.attribute if entry.name == "K"]
        kept = [entry for entry in node.attribute if entry.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
        sides = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in ((node.input[0], [columns, columns]), (node.output[0], None))
        ]
        tensors = [held[name] for name in node.input[1:]]
        graph = helper.make_graph([node], "one", sides[:1], sides[1:], tensors)
        alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=10)
        session = onnxruntime.InferenceSession(alone.SerializeToString())
        yield session.run(None, {node.input[0]: np.eye(columns, dtype=np.float32)})[0].T


QUANTIZERS: dict[str, tuple[Callable[[], dict[str, Any]], float]] = {
    "symmetric": (lambda: {"block_size": 32, "is_symmetric": True}, 1e-4),
    "zero points": (lambda: {"block_size": 16}, 1e-4),
    "rounded inputs": (lambda: {"block_size": 256, "accuracy_level": 4}, 0.05),
    "8 bits": (lambda: {"bits": 8, "block_size": 64}, 1e-4),
    "2 bits": (lambda: {"bits": 2, "block_size": 32}, 1e-4),
    "k-quant": (
        lambda: {"algo_config": nbits.KQuantWeightOnlyQuantConfig(), "block_size": 32},
        1e-4,
    ),
    "HQQ": (lambda: {"algo_config": nbits.HQQWeightOnlyQuantConfig(block_size=64)}, 1e-4),
    "RTN": (lambda: {"algo_config": nbits.RTNWeightOnlyQuantConfig(), "block_size": 32}, 1e-4),
}


def pack(plain: Path, path: Path, options: dict[str, Any]) -> None:
    """Let onnxruntime quantize the MatMuls of a file to a few bits."""
    logging.getLogger(nbits.__name__).setLevel(logging.ERROR)
    quantizer = nbits.MatMulNBitsQuantizer(onnx.load(plain), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantizer.process()
    quantizer.model.save_model_to_file(str(path))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_packed_weights_are_what_onnxruntime_multiplies_by(
    plain: dict[str, Path], tmp_path: Path, name: str
) -> None:
    options, tolerance = QUANTIZERS[name]
    path, out = tmp_path / "small.onnx", tmp_path / "out"
    pack(plain["test_vit"], path, options())
    import_file(path, "onnx", "test_vit", out)
    network = vqzoo.load(out)
    layers = open_artifact(out).metadata.layers
    keys = [key for key in network.state_dict() if key in layers]
    weights = list(products_with_unit_vectors(onnx.load(path)))
    assert len(weights) == len(keys) > 20
    for key, weight in zip(keys, weights, strict=True):
        assert np.array_equal(network.get_parameter(key).detach().numpy(), weight), key
    with torch.no_grad():
        ours = network(torch.from_numpy(IMAGES[160])).numpy()
    expected = answers(path)
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


class Images(CalibrationDataReader):
    """One random image."""

    def __init__(self, path: Path) -> None:
        (entry,) = onnx.load(path).graph.input
        size = entry.type.tensor_type.shape.dim[2].dim_value
        self._left = [{entry.name: IMAGES[size]}]

    def get_next(self) -> dict[str, Array] | None:
        return self._left.pop() if self._left else None


def dynamic(plain: Path, path: Path, *, by_row: bool) -> None:
    """Round weights; inputs are rounded when the network runs."""
    quantize_dynamic(str(plain), str(path), per_channel=by_row, weight_type=QuantType.QInt8)


def integers(plain: Path, path: Path, *, by_row: bool) -> None:
    """Round weights and activations; operators multiply integers."""
    quantize_static(
        str(plain), str(path), Images(plain), quant_format=QuantFormat.QOperator, per_channel=by_row
    )


def pairs(plain: Path, path: Path, *, by_row: bool) -> None:
    """Round weights and activations between operators in floats."""
    quantize_static(
        str(plain), str(path), Images(plain), quant_format=QuantFormat.QDQ, per_channel=by_row
    )


def own_pairs(plain: Path, path: Path, *, by_row: bool) -> None:
    """The same with onnxruntime's own operators."""
    quantize_static(
        str(plain),
        str(path),
        Images(plain),
        quant_format=QuantFormat.QDQ,
        per_channel=by_row,
        extra_options={"UseQDQContribOps": True},
    )


def written_weights(path: Path) -> list[Array]:
    """Integers less their zero points, times their scales: convolutions, and matrices both as they
    are and transposed."""
    held, weights = initializers(onnx.load(path)), []
    for name in held:
        base = name.removesuffix("_quantized")
        if name == base or held[name].ndim not in (2, 4):
            continue
        codes, zero = held[name].astype(np.int32), held[f"{base}_zero_point"].astype(np.int32)
        for turned in (codes, codes.T) if codes.ndim == 2 else (codes,):
            shape = (-1, *[1] * (codes.ndim - 1))
            if zero.size in (1, len(turned)):
                scale = held[f"{base}_scale"].reshape(shape)
                weights.append((turned - zero.reshape(shape)).astype(np.float32) * scale)
    return weights


WRITERS = {"dynamic": dynamic, "integers": integers, "pairs": pairs, "own pairs": own_pairs}


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("network", SIZES)
@pytest.mark.parametrize("writer", WRITERS)
def test_weights_beside_rounded_activations_are_imported(
    plain: dict[str, Path], tmp_path: Path, writer: str, network: str, by_row: bool
) -> None:
    path, out, said = tmp_path / "small.onnx", tmp_path / "out", Listener()
    WRITERS[writer](plain[f"{network} prepared"], path, by_row=by_row)
    import_file(path, "onnx", network, out, watcher=said)
    assert "The file rounds activations, too; the artifact does not." in said.lines
    loaded = vqzoo.load(out)
    layers, expected = open_artifact(out).metadata.layers, written_weights(path)
    assert len(layers) == sum(tensor.dim() in (2, 4) for tensor in loaded.state_dict().values())
    for key in layers:
        weight = loaded.get_parameter(key).detach().numpy()
        assert any(np.array_equal(weight, other) for other in expected), key
    with torch.no_grad():
        ours = loaded(torch.from_numpy(IMAGES[SIZES[network]])).numpy()
    reference = answers(plain[network])  # the file's own have the errors of activations as well
    assert np.abs(ours - reference).max() <= 0.05 * np.abs(reference).max()


def dense_layers_alone(plain: Path, path: Path, *, by_row: bool) -> None:
    """Round weights of matrices, and leave convolutions in floats."""
    quantize_dynamic(str(plain), str(path), op_types_to_quantize=["MatMul"], per_channel=by_row)


@pytest.mark.parametrize("writer", [dynamic, pairs, dense_layers_alone])
@pytest.mark.parametrize("network", SIZES)
def test_files_that_onnxruntime_has_optimized_are_the_same(
    plain: dict[str, Path], tmp_path: Path, network: str, writer: Callable[..., None]
) -> None:
    path, optimized = tmp_path / "small.onnx", tmp_path / "optimized.onnx"
    writer(plain[f"{network} prepared"], path, by_row=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = [{node.op_type for node in onnx.load(one).graph.node} for one in (path, optimized)]
    assert operators[0] != operators[1]
    states = []
    for one in (path, optimized):
        import_file(one, "onnx", network, tmp_path / one.stem)
        states.append(vqzoo.load(tmp_path / one.stem).state_dict())
    assert all(torch.equal(states[1][key], tensor) for key, tensor in states[0].items())


class Listener(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def set_attribute(name: str, value: int) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        (entry,) = [entry for entry in node.attribute if entry.name == name]
        entry.i = value

    return change


def set_input(place: int, values: Array) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(values, "other"))
        while len(node.input) <= place:
            node.input.append("")
        node.input[place] = "other"

    return change


def scale_that_is_computed(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.input[2] = node.input[0]


BAD_PACKED = {
    "a block of 24": (set_attribute("block_size", 24), "4 bits in blocks of 24 are not imported"),
    "a huge block": (set_attribute("block_size", 1 << 40), "blocks of 1099511627776"),
    "five bits": (set_attribute("bits", 5), "5 bits in blocks of 16"),
    "more columns": (set_attribute("K", 10**9), "not those of 192 × 1000000000 weights"),
    "no rows": (set_attribute("N", 0), "not those of 0 × 64 weights"),
    "few scales": (set_input(2, np.ones(7, dtype=np.float32)), "not those of 192 × 64 weights"),
    "bytes as floats": (set_input(1, np.ones((192, 4, 8), dtype=np.float32)), "not those of 192"),
    "few zero points": (set_input(3, np.ones(7, dtype=np.uint8)), "operands that do not fit"),
    "an order": (set_input(4, np.zeros(64, dtype=np.int32)), "columns in another order"),
    "computed scales": (scale_that_is_computed, "is not constant"),
}


@pytest.mark.parametrize("case", BAD_PACKED)
def test_packed_weights_that_do_not_fit_are_refused(
    plain: dict[str, Path], tmp_path: Path, case: str
) -> None:
    change, message = BAD_PACKED[case]
    pack(plain["test_vit"], tmp_path / "small.onnx", {"block_size": 16})
    model = onnx.load(tmp_path / "small.onnx")
    change(model, next(node for node in model.graph.node if node.op_type == "MatMulNBits"))
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.onnx", "onnx", "test_vit", tmp_path / "out")
    assert "MatMulNBits of " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_integers_without_their_scale_are_refused(plain: dict[str, Path], tmp_path: Path) -> None:
    dynamic(plain["test_resnet prepared"], tmp_path / "small.onnx", by_row=False)
    model = onnx.load(tmp_path / "small.onnx")
    for node in model.graph.node:
        if node.op_type == "Mul":
            node.op_type = "Sub"
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match="is not multiplied by a constant scale") as refused:
        import_file(tmp_path / "bad.onnx", "onnx", "test_resnet", tmp_path / "out")
    assert "\n" not in str(refused.value)
