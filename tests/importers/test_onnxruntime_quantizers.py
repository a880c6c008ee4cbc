"""`vqzoo import --from onnx`: products of integers, which onnxruntime's own quantizers write."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.importers.onnxruntime_files import IMAGES, SIZES, Array, answers, initializers, optimize


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
    optimize(path, optimized)
    operators = [{node.op_type for node in onnx.load(one).graph.node} for one in (path, optimized)]
    assert operators[0] != operators[1]
    states = []
    for one in (path, optimized):
        import_file(one, "onnx", network, tmp_path / one.stem)
        states.append(vqzoo.load(tmp_path / one.stem).state_dict())
    assert all(torch.equal(states[1][key], tensor) for key, tensor in states[0].items())


def test_products_of_integers_without_bias_are_imported(
    plain: dict[str, Path], tmp_path: Path
) -> None:
    path, out = tmp_path / "small.onnx", tmp_path / "out"
    integers(plain["test_vit"], path, by_row=True)  # products and sums are two operators
    model = onnx.load(path)
    products = [node for node in model.graph.node if node.op_type == "QLinearMatMul"]
    assert sum(node.input[3] in initializers(model) for node in products) == 24
    import_file(path, "onnx", "test_vit", out)
    check_imported_vit(out, path, plain["test_vit"])


def check_imported_vit(out: Path, quantized: Path, plain: Path) -> None:
    """Every layer has weights of the quantized file, and answers are nearly the plain file's."""
    loaded, expected = vqzoo.load(out), written_weights(quantized)
    layers = open_artifact(out).metadata.layers
    assert len(layers) == 26
    for key in layers:
        weight = loaded.get_parameter(key).detach().numpy()
        assert any(np.array_equal(weight, other) for other in expected), key
    with torch.no_grad():
        ours = loaded(torch.from_numpy(IMAGES[160])).numpy()
    reference = answers(plain)
    assert np.abs(ours - reference).max() <= 0.05 * np.abs(reference).max()


def with_shared_inputs(path: Path, out: Path) -> int:
    """Write a file whose inputs are rounded by an operator of their own, as onnxruntime's optimizer
    leaves them where several products have the same; returns how many products it has."""
    model, nodes = onnx.load(path), []
    for node in model.graph.node:
        if node.op_type != "DynamicQuantizeMatMul":
            nodes.append(node)
            continue
        inputs, weight, scale, zero, bias = [*node.input, ""][:5]
        names = [f"{node.output[0]}_{part}" for part in ("rounded", "scale", "zero")]
        nodes.append(helper.make_node("DynamicQuantizeLinear", [inputs], names))
        operands = [names[0], weight, names[1], scale, names[2], zero, bias]
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat", operands, node.output, node.name, domain="com.microsoft"
            )
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, out)
    return sum(node.op_type == "MatMulIntegerToFloat" for node in nodes)


@pytest.mark.parametrize("by_row", [False, True])
def test_products_of_rounded_inputs_that_are_shared_are_imported(
    plain: dict[str, Path], tmp_path: Path, by_row: bool
) -> None:
    small, fused, path = (tmp_path / f"{name}.onnx" for name in ("small", "fused", "shared"))
    dynamic(plain["test_vit prepared"], small, by_row=by_row)
    optimize(small, fused)
    assert with_shared_inputs(fused, path) == 25
    before = answers(fused)
    assert np.abs(answers(path) - before).max() <= 1e-4 * np.abs(before).max()
    import_file(path, "onnx", "test_vit", tmp_path / "out")
    check_imported_vit(tmp_path / "out", small, plain["test_vit"])


class Listener(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


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
