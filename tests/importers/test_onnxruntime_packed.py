"""`vqzoo import --from onnx`: weights of a few bits, packed in blocks (MatMulNBits)."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits
from onnxruntime.transformers.float16 import convert_float_to_float16

from tests.importers.onnxruntime_files import IMAGES, Array, answers


def products_with_unit_vectors(model: onnx.ModelProto) -> Iterator[Array]:
    """The weights (N, K) that onnxruntime multiplies by in each MatMulNBits, in the dtype of its
    scales, which is that of its products."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "MatMulNBits"]:
        (columns,) = [entry.i for entry in node.attribute if entry.name == "K"]
        kept = [entry for entry in node.attribute if entry.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
        kind = held[node.input[2]].data_type
        sides = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, shape in ((node.input[0], [columns, columns]), (node.output[0], None))
        ]
        tensors = [held[name] for name in node.input[1:]]
        graph = helper.make_graph([node], "one", sides[:1], sides[1:], tensors)
        alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=10)
        session = onnxruntime.InferenceSession(alone.SerializeToString())
        unit = np.eye(columns, dtype=helper.tensor_dtype_to_np_dtype(kind))
        yield session.run(None, {node.input[0]: unit})[0].T


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


@pytest.mark.parametrize("name", ["symmetric", "HQQ"])
def test_packed_weights_of_networks_in_half_precision_are_multiplied_in_single(
    plain: dict[str, Path], tmp_path: Path, name: str
) -> None:
    half, path, out = (tmp_path / part for part in ("half.onnx", "small.onnx", "out"))
    onnx.save(convert_float_to_float16(onnx.load(plain["test_vit"]), keep_io_types=True), half)
    pack(half, path, QUANTIZERS[name][0]())
    import_file(path, "onnx", "test_vit", out)
    network = vqzoo.load(out)
    layers = open_artifact(out).metadata.layers
    keys = [key for key in network.state_dict() if key in layers]
    products = list(products_with_unit_vectors(onnx.load(path)))
    assert len(products) == len(keys) > 20
    for key, product in zip(keys, products, strict=True):  # rounded to half after the sum
        assert product.dtype == np.float16
        weight = network.get_parameter(key).detach().numpy()
        assert np.array_equal(weight.astype(np.float16), product), key
    with torch.no_grad():
        ours = network(torch.from_numpy(IMAGES[160])).numpy()
    expected = answers(path)  # with activations in half precision
    assert np.abs(ours - expected).max() <= 0.02 * np.abs(expected).max()


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
