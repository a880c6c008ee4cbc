"""`vqzoo import --from coreml`: palettized and quantized packages."""

import json
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

ct = pytest.importorskip("coremltools")
from tests.importers import coreml_packages  # noqa: E402 - it needs coremltools
from tests.importers.coreml_packages import Decoder  # noqa: E402

DECODERS: dict[str, tuple[Decoder, str, str]] = {
    "table": (coreml_packages.table_of_64, "iOS16", "km"),
    "vectors": (coreml_packages.vectors, "iOS18", "pq"),
    "groups": (coreml_packages.tables_of_groups, "iOS18", "km or pq"),
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
