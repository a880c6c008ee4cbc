"""`vqzoo import --from coreml`: palettized and quantized packages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vqzoo
from tests.importers.layouts import ARCHITECTURE
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

ct = pytest.importorskip("coremltools")
from tests.importers import coreml_packages  # noqa: E402 - it needs coremltools
from tests.importers.coreml_packages import Decoder  # noqa: E402

DECODERS: dict[str, tuple[Decoder, str, str]] = {
    "table": (coreml_packages.table_of_64, "iOS16", "km"),
    "vectors": (coreml_packages.vectors, "iOS18", "pq"),
    "groups": (coreml_packages.tables_of_groups, "iOS18", "km or pq"),
    "inputs": (coreml_packages.tables_of_inputs, "iOS18", "km or pq"),
    "scaled tables": (coreml_packages.scaled_tables, "iOS18", "km or pq"),
    "rows": (coreml_packages.bytes_of_rows, "iOS16", "km or rtn"),
    "blocks": (coreml_packages.nibbles_of_blocks, "iOS18", "km or rtn"),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_what_coremltools_decodes(tmp_path: Path, name: str, named: bool) -> None:
    decoder, system, methods = DECODERS[name]
    path, out = tmp_path / "small.mlpackage", tmp_path / "out"
    expected = coreml_packages.write(path, decoder, getattr(ct.target, system), named=named)
    made = import_file(path, "coreml", ARCHITECTURE, out)
    assert made.licence == "cc-by-4.0"
    network = vqzoo.load(out)
    layers = open_artifact(out).metadata.layers
    assert layers.keys() == expected.keys()
    for key, weight in expected.items():
        assert np.array_equal(network.get_parameter(key).detach().numpy(), weight), key
        assert layers[key].code.method in methods.split(" or ")


HALF_DECODERS: dict[str, tuple[Decoder, str, str]] = {
    "rows": (coreml_packages.half_bytes_of_rows, "iOS16", "rtn"),
    "offsets": (coreml_packages.bytes_with_offsets, "iOS18", "rtn"),
    "blocks": (coreml_packages.half_nibbles_of_blocks, "iOS18", "rtn or pq"),
    "pruned": (coreml_packages.pruned, "iOS18", "prune"),
    "pruned flat": (coreml_packages.pruned_flat, "iOS16", "prune"),
    "pruned bytes": (coreml_packages.pruned_bytes, "iOS18", "rtn"),
    "pruned palettes": (coreml_packages.pruned_palettes, "iOS18", "km or pq"),
    "pruned vectors": (coreml_packages.pruned_vectors, "iOS18", "km or pq"),
}


@pytest.mark.parametrize("name", HALF_DECODERS)
def test_weights_in_half_precision_are_what_coremltools_decodes(tmp_path: Path, name: str) -> None:
    decoder, system, methods = HALF_DECODERS[name]
    path, out = tmp_path / "small.mlpackage", tmp_path / "out"
    target = getattr(ct.target, system)
    expected = coreml_packages.write(path, decoder, target, named=True, half=True)
    import_file(path, "coreml", ARCHITECTURE, out, packing="ans")
    state, layers = vqzoo.load(out).state_dict(), open_artifact(out).metadata.layers
    assert layers.keys() == expected.keys()
    from_codes = vqzoo.load(out, mode="codes")
    for key, weight in expected.items():
        assert weight.dtype == np.float16
        assert np.array_equal(state[key].numpy(), weight.astype(np.float32)), key
        assert layers[key].code.method in methods.split(" or ")
        layer = from_codes.get_submodule(key.removesuffix(".weight"))
        assert torch.equal(layer.weight, state[key]), key


def test_tables_of_inputs_take_few_bits(tmp_path: Path) -> None:
    path, out = tmp_path / "small.mlpackage", tmp_path / "out"
    decoder = coreml_packages.tables_of_inputs
    coreml_packages.write(path, decoder, ct.target.iOS18, named=True)
    import_file(path, "coreml", ARCHITECTURE, out)
    code = open_artifact(out).metadata.layers["fc.weight"].code
    assert (code.method, code.facts["axis"]) == ("pq", "columns")
    assert code.parts["codes"].cardinality == 16


def test_a_folded_norm_adds_its_bias_exactly(tmp_path: Path) -> None:
    path, out = tmp_path / "small.mlpackage", tmp_path / "out"
    coreml_packages.write(path, coreml_packages.table_of_64, ct.target.iOS16, named=False)
    import_file(path, "coreml", ARCHITECTURE, out)
    norm = vqzoo.load(out).get_submodule("bn1")
    x = torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(norm(x), x + norm.bias[:, None, None])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coreml") / "small.mlpackage"
    coreml_packages.write(path, coreml_packages.vectors, ct.target.iOS18, named=True)
    return path


@pytest.mark.parametrize(
    ("file", "cut", "message"),
    [
        ("weights/weight.bin", 100, r"weight\.bin at \d+: "),
        ("model.mlmodel", 100, r"(cannot be read|no block|no ML program|no layer)"),
        ("model.mlmodel", 0, "holds no ML program"),
    ],
)
def test_damaged_packages_are_refused(
    package: Path, tmp_path: Path, file: str, cut: int, message: str
) -> None:
    path = tmp_path / "bad.mlpackage"
    shutil.copytree(package, path)
    inner = path / "Data" / "com.apple.CoreML" / file
    inner.write_bytes(inner.read_bytes()[:cut])
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["another input", "no data", "no scale"])
def test_tables_times_scales_with_other_inputs_are_imported_or_refused(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "bad.mlpackage"
    half = coreml_packages.half_scaled_tables
    coreml_packages.write(path, half, ct.target.iOS18, named=True, half=True)
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.utils.load_spec(str(path))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    tables = [o for o in block.operations if o.type == "constexpr_blockwise_shift_scale"]
    assert tables
    for operation in tables:
        inputs = operation.inputs or operation.attributes
        if change == "another input":
            inputs["axis"].CopyFrom(inputs["scale"])
        else:
            del inputs[change.removeprefix("no ")]
    file.write_bytes(spec.SerializeToString())
    if change == "another input":
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
        return
    with pytest.raises(VqzooError) as refused:
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)


def another_mask(inputs: list[Any]) -> None:
    inputs[1]["mask"].CopyFrom(inputs[0]["mask"])


def other_values(inputs: list[Any]) -> None:
    inputs[1]["nonzero_data"].CopyFrom(inputs[0]["nonzero_data"])


def no_mask(inputs: list[Any]) -> None:
    del inputs[1]["mask"]


@pytest.mark.parametrize("decoder", [coreml_packages.pruned, coreml_packages.pruned_bytes])
@pytest.mark.parametrize("change", [another_mask, other_values, no_mask])
def test_pruned_weights_behind_other_masks_are_refused(
    tmp_path: Path, decoder: Decoder, change: Callable[[list[Any]], None]
) -> None:
    path = tmp_path / "bad.mlpackage"
    coreml_packages.write(path, decoder, ct.target.iOS18, named=True, half=True)
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.utils.load_spec(str(path))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    change([o.inputs for o in block.operations if o.type == "constexpr_sparse_to_dense"])
    file.write_bytes(spec.SerializeToString())
    with pytest.raises(VqzooError) as refused:
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
    assert "weight_sparse" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_paths_outside_the_package_are_not_read(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.mlpackage"
    shutil.copytree(package, path)
    shutil.move(path / "Data" / "com.apple.CoreML" / "model.mlmodel", tmp_path / "model.mlmodel")
    manifest = json.loads((path / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = f"../../{Path(entry['path']).name}"
    (path / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VqzooError, match=r"has no com\.apple\.CoreML/model\.mlmodel"):
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
    (path / "Manifest.json").write_text("{}")
    with pytest.raises(VqzooError, match="has no manifest that can be read"):
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")


def test_offsets_that_float16_rounds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "far.mlpackage"
    decoder = coreml_packages.bytes_with_far_offsets
    coreml_packages.write(path, decoder, ct.target.iOS18, named=True, half=True)
    with pytest.raises(VqzooError, match="constexpr_blockwise_shift_scale, which is not imported"):
        import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
