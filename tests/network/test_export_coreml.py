"""Core ML packages: small, and their weights are the artifact's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.export import export
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

pytest.importorskip("coremltools")

Decoded = dict[str, np.ndarray[Any, Any]]


def operations_of(package: Path) -> list[Any]:
    """The operations of a package."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    return list(program.functions["main"].operations)


def decoded(package: Path) -> tuple[list[Any], Decoded]:
    """The operations of a package, and the weights of its layers by name, as coremltools decodes
    them."""
    operations = operations_of(package)
    weights = {}
    for operation in operations:
        if operation.op_type in ("conv", "linear"):
            made_by = operation.weight.op
            dense = made_by.op_type == "const"
            values = operation.weight.val if dense else made_by.materialized_val_inference()
            weights[operation.weight.name] = values
    return operations, weights


def compressed(name: str, rules: dict[str, tuple[str, dict[str, Any]]], folder: Path) -> Path:
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    vqzoo.compress(model, rules).save(folder, packing="bits", rest="float16")
    return folder


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact with depthwise and other layers, and what was exported of it."""
    rules: dict[str, tuple[str, dict[str, Any]]] = {
        "conv_stem": ("km", {"k": 5}),
        "blocks.1.0.conv_dw": ("km", {"k": 16}),
        "blocks.1.1.conv_dw": ("pq", {"d": 3, "k": 64}),
        "blocks.1.2.conv_dw": ("pq", {"d": 9, "k": 16, "codebook": "layer"}),
        "blocks.2.1.conv_dw": ("binary", {}),
        "blocks.1.0.conv_pwl": ("pq", {"d": 4, "k": 64, "axis": "rows"}),
        "blocks.1.1.conv_pw": ("pq", {"d": 4, "k": 32}),
        "blocks.1.2.conv_pw": ("rtn", {"format": "int8"}),
        "blocks.1.2.conv_pwl": ("rtn", {"format": "int4"}),
        "blocks.2.0.conv_pw": ("rtn", {"format": "int6"}),
        "blocks.2.1.conv_pw": ("deep-compression", {}),
    }
    folder = tmp_path_factory.mktemp("mobile")
    artifact = compressed("mobilenet_mini", rules, folder / "artifact")
    exported = export(artifact, "coreml", folder / "coreml")
    assert exported.bytes == sum(
        file.stat().st_size for file in exported.files if file.name != "config.json"
    )
    assert exported.written.dense == ()
    assert exported.bytes <= 1.1 * exported.artifact_bytes
    check = exported.written.check
    assert check is not None
    assert (check.compared, check.error <= check.tolerance) == ("weights", True)
    return artifact, folder / "coreml" / "model.mlpackage"


def test_weights_are_the_artifacts(mobile: tuple[Path, Path]) -> None:
    artifact, package = mobile
    _, weights = decoded(package)
    state = vqzoo.load(artifact).state_dict()
    compared = 0
    for key, tensor in state.items():
        values = weights.get(f"{key.replace('.', '_')}_to_fp16")
        if values is not None:
            largest = float(tensor.abs().max())
            np.testing.assert_allclose(values, tensor.numpy(), rtol=1e-3, atol=1e-3 * largest)
            compared += 1
    assert compared == len([k for k, t in state.items() if t.ndim > 1])


def test_each_method_has_its_form(mobile: tuple[Path, Path]) -> None:
    from coremltools.converters.mil.mil import types

    operations, _ = decoded(mobile[1])
    by_name = {operation.outputs[0].name: operation for operation in operations}

    def table(key: str) -> tuple[int, tuple[int, ...], Any]:
        lookup = by_name.get(f"{key}_weight_to_fp16_palette") or by_name[f"{key}_weight_to_fp16"]
        axis = lookup.vector_axis
        width = lookup.indices.dtype.get_bitwidth()
        return width, lookup.lut.shape, None if axis is None else int(axis.val)

    assert table("conv_stem") == (3, (1, 1, 1, 1, 8, 1), None)
    assert table("blocks_1_0_conv_dw") == (4, (1, 1, 1, 1, 16, 1), None)
    assert table("blocks_1_1_conv_dw") == (6, (1, 1, 1, 1, 64, 3), 3)
    assert table("blocks_1_2_conv_dw") == (4, (1, 1, 3, 3, 16, 1), None)
    assert table("blocks_2_1_conv_dw") == (1, (1, 1, 1, 1, 2, 1), None)
    assert table("blocks_1_0_conv_pwl") == (6, (1, 1, 1, 1, 64, 4), 0)
    assert table("blocks_1_1_conv_pw") == (6, (1, 1, 1, 1, 64, 4), 1)
    assert table("blocks_2_0_conv_pw")[0] == 6
    for key, kind in (("1_2_conv_pw", "int8"), ("1_2_conv_pwl", "int4")):
        operation = by_name[f"blocks_{key}_weight_to_fp16"]
        assert operation.op_type == "constexpr_blockwise_shift_scale"
        assert types.builtin_to_string(operation.data.dtype) == kind


def test_import_gives_the_artifact_back(mobile: tuple[Path, Path], tmp_path: Path) -> None:
    artifact, package = mobile
    import_file(package, "coreml", "mobilenet_mini", tmp_path / "back")
    back, state = vqzoo.load(tmp_path / "back").state_dict(), vqzoo.load(artifact).state_dict()
    assert [key for key in state if not torch.equal(back[key], state[key])] == []
    layers = open_artifact(tmp_path / "back").metadata.layers
    methods = {key: layer.code.method for key, layer in layers.items()}
    assert methods["blocks.1.0.conv_dw.weight"] == "km"
    assert methods["blocks.1.0.conv_pwl.weight"] == "pq"
    assert methods["blocks.1.2.conv_pwl.weight"] == "rtn"


def test_svd_becomes_two_layers_and_what_has_no_form_is_named(tmp_path: Path) -> None:
    rules: dict[str, tuple[str, dict[str, Any]]] = {
        "blocks.1.1.conv_pwl": ("svd", {"rank": 8}),
        "blocks.1.1.conv_dw": ("svd", {"rank": 2}),
        "blocks.2.0.conv_pwl": ("rq", {"d": 4, "k": 16, "stages": 2}),
        "classifier": ("svd", {"rank": 4}),
    }
    artifact = compressed("mobilenet_mini", rules, tmp_path / "artifact")
    exported = export(artifact, "coreml", tmp_path / "o")
    assert [(weight.key, weight.bytes) for weight in exported.written.dense] == [
        ("blocks.1.1.conv_dw.weight", 2 * 160 * 9),
        ("blocks.2.0.conv_pwl.weight", 2 * 80 * 160),
    ]
    _, weights = decoded(tmp_path / "o" / "model.mlpackage")
    exact = vqzoo.load(artifact)
    for layer, rank in (("blocks.1.1.conv_pwl", 8), ("classifier", 4)):
        left, right = (
            weights[f"{layer.replace('.', '_')}_{place}_weight_to_fp16"] for place in (1, 0)
        )
        weight = exact.get_submodule(layer).weight.detach().flatten(1).numpy()
        left, right = (part.reshape(len(part), -1).astype(np.float32) for part in (left, right))
        assert right.shape[0] == rank
        np.testing.assert_allclose(left @ right, weight, atol=1e-5 * np.abs(weight).max())
    package = tmp_path / "o" / "model.mlpackage"
    import_file(package, "coreml", "mobilenet_mini", tmp_path / "back")
    layers = open_artifact(tmp_path / "back").metadata.layers
    assert {key: layer.code.method for key, layer in layers.items()} == {
        "blocks.1.1.conv_pwl.weight": "svd",
        "classifier.weight": "svd",
    }
    back, state = vqzoo.load(tmp_path / "back").state_dict(), exact.state_dict()
    rounded = {weight.key for weight in exported.written.dense}
    assert {key for key in state if not torch.equal(back[key], state[key])} <= rounded
    for change, message in FACTORS.values():
        refuse_changed(package, change, message)


def test_a_convnext_comes_back_with_the_scales_of_its_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_convnext").eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # 1e-6 at first, which float16 rounds
            parameter.data = torch.randn_like(parameter).half().float()
    vqzoo.compress(model, {"stages*": ("km", {"k": 16})}).save(
        tmp_path / "small", packing="bits", rest="float16"
    )
    export(tmp_path / "small", "coreml", tmp_path / "o")
    package, lines = tmp_path / "o/model.mlpackage", list[str]()
    watcher = SilentWatcher()
    watcher.say = lines.append  # type: ignore[method-assign]
    import_file(package, "coreml", "test_convnext", tmp_path / "back", watcher=watcher)
    before, after = (vqzoo.load(tmp_path / name).state_dict() for name in ("small", "back"))
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    codes = open_artifact(tmp_path / "back").metadata.layers
    assert codes.keys() == open_artifact(tmp_path / "small").metadata.layers.keys()
    assert "stages.0.blocks.0.gamma and the like, 9 vectors, have lost their names: by order." in (
        lines
    )


def another_input(first: Any, second: Any, norm: Any) -> None:
    second.inputs["x"].CopyFrom(first.inputs["x"])


def nothing_behind(first: Any, second: Any, norm: Any) -> None:
    second.inputs["weight"].arguments[0].name = "elsewhere"


def two_biases(first: Any, second: Any, norm: Any) -> None:
    first.inputs["bias"].CopyFrom(norm.inputs["gamma"])


FACTORS = {
    "another input": (another_input, "no second factor follows classifier_0_weight"),
    "no second one": (nothing_behind, "elsewhere is computed by the network's inputs"),
    "a bias between them": (two_biases, "classifier_1_weight_to_fp16 are not two factors"),
}


def refuse_changed(package: Path, change: Callable[[Any, Any, Any], None], message: str) -> None:
    """Change the two layers of the classifier in a package, and see that its import is refused."""
    import coremltools as ct

    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    before = file.read_bytes()
    spec = ct.utils.load_spec(str(package))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    norm = next(operation for operation in block.operations if operation.type == "batch_norm")
    linear = [operation for operation in block.operations if operation.type == "linear"]
    change(*linear, norm)
    file.write_bytes(spec.SerializeToString())
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(package, "coreml", "mobilenet_mini", package.parent / "out")
    assert "\n" not in str(refused.value)
    file.write_bytes(before)


def test_a_package_of_km_and_pq_is_as_small_as_the_artifact(
    tmp_path: Path, vqzoo: Callable[..., Any]
) -> None:
    rules: dict[str, tuple[str, dict[str, Any]]] = {
        "classifier.1": ("km", {"k": 4}),
        "classifier.4": ("pq", {"d": 4, "k": 16, "axis": "rows"}),
        "features.8": ("km", {"k": 16}),
        "features.11": ("pq", {"d": 3, "k": 16}),
        "features.4": ("pq", {"d": 4, "k": 64, "axis": "rows"}),
    }
    compressed("alexnet_mini", rules, tmp_path / "artifact")
    done = vqzoo("export", "artifact", "--to", "coreml", "--out", "o", "--json")
    record = json.loads(done.stdout)
    assert record["bytes"] <= 1.1 * record["artifact_bytes"]
    assert (record["format"], record["weights"]) == ("coreml", "codes")
    assert (record["palettes"], record["target"]) == (5, "iOS18")
    assert record["error"] <= record["tolerance"]
    assert "dense" not in record
    assert "WARNING" not in done.stderr
    vqzoo("export", "artifact", "--to", "coreml", "--out", "again")
    for file in record["files"]:
        again = tmp_path / file.replace("o/", "again/", 1)
        assert (tmp_path / file).read_bytes() == again.read_bytes()


def test_tables_of_int8(mobile: tuple[Path, Path], tmp_path: Path) -> None:
    artifact, package = mobile
    exported = export(artifact, "coreml", tmp_path / "o", tables="int8")
    facts, check = dict(exported.written.facts), exported.written.check
    assert facts["int8_tables"] == 9  # all but the grids of int4 and int8
    assert check is not None
    assert 1e-3 < check.error <= 0.5 / 127 + 2e-3
    assert 0 < float(facts["logit_error"]) < 0.1
    operations = operations_of(tmp_path / "o/model.mlpackage")
    lookups = [o for o in operations if o.op_type == "constexpr_lut_to_dense"]
    assert {str(o.lut.op.data.val.dtype) for o in lookups} == {"int8"}
    # Entries times scales, looked up, are within half a step of the tables in float16.
    before = {o.outputs[0].name: o for o in operations_of(package)}
    for lookup in lookups:
        old = before[lookup.outputs[0].name].lut.val.astype(np.float32)
        new = lookup.lut.op.materialized_val_inference().astype(np.float32)
        peak = np.abs(old).max((-2, -1), keepdims=True)
        assert (np.abs(new - old) <= peak * (0.5 / 127 + 1e-3)).all()
    import_file(tmp_path / "o/model.mlpackage", "coreml", "mobilenet_mini", tmp_path / "back")
    back, state = vqzoo.load(tmp_path / "back").state_dict(), vqzoo.load(artifact).state_dict()
    for key, tensor in state.items():
        assert (back[key] - tensor).abs().max() <= 6e-3 * tensor.abs().max(), key


def test_dense_weights_are_float16(tmp_path: Path, made: Path) -> None:
    exported = export(made, "coreml", tmp_path / "o", weights="dense")
    operations, weights = decoded(tmp_path / "o" / "model.mlpackage")
    assert not [o for o in operations if o.op_type.startswith("constexpr_")]
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float16)}
    assert exported.weights == "dense"
