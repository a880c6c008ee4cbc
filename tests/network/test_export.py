"""Exports load in the tools that they are for, and compute the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import vqzoo
from vqzoo.artifact.folder import new_folder
from vqzoo.cli.main import app
from vqzoo.errors import UsageError, VqzooError
from vqzoo.network.export import export, formats
from vqzoo.network.export import onnx as onnx_files

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(3))


def test_plain_timm_loads_the_dense_folder(made: Path, tmp_path: Path) -> None:
    exported = export(made, "dense", tmp_path / "dense")
    assert [path.name for path in exported.files] == ["config.json", "model.safetensors"]
    model = timm.create_model(f"local-dir:{tmp_path / 'dense'}", pretrained=True).eval()
    assert torch.equal(model(IMAGES), vqzoo.load(made)(IMAGES))
    with pytest.raises(UsageError, match="not empty"):
        export(made, "dense", tmp_path / "dense")


def test_timm_loads_vqzoos_architectures_once_they_are_registered(tmp_path: Path) -> None:
    """Whichever is imported first: tests/conftest.py imports vqzoo, the process below timm."""
    vqzoo.register_models()
    vqzoo.compress(timm.create_model("alexnet_mini"), "km", k=2).save(tmp_path / "a")
    export(tmp_path / "a", "dense", tmp_path / "dense")
    timm.create_model(f"local-dir:{tmp_path / 'dense'}", pretrained=True)
    program = (
        "import timm, vqzoo\n"
        "vqzoo.register_models()\n"
        "timm.create_model('local-dir:dense', pretrained=True)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_torchvision_loads_an_exported_alexnet(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    vqzoo.register_models()
    model = timm.create_model("alexnet", num_classes=4)
    small = vqzoo.compress(model, "rtn", layers="classifier.6")
    small.save(tmp_path / "a")
    export(tmp_path / "a", "dense", tmp_path / "dense")
    theirs = torchvision.models.alexnet(num_classes=4).eval()
    theirs.load_state_dict(load_file(tmp_path / "dense/model.safetensors"))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), small(images))


def test_onnx_that_computes_something_else_is_not_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx_files, "TOLERANCE", 0.0)
    with pytest.raises(VqzooError, match="differ"):
        export(made, "onnx", tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_and_unknown_formats(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["export", str(made), "--to", "onnx"])
    assert (done.exit_code, "vqzoo[onnx]" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["export", str(made), "--to", "tflite"])
    assert (done.exit_code, "dense, onnx, web, pt2" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["export", str(made), "--to", "dense", "--weights", "codes"])
    assert (done.exit_code, "dense weights only" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["export", str(made), "--to", "dense"])
    assert done.stdout.splitlines()[1] == f"{made.name}-dense/model.safetensors"


PLUGIN = """
from vqzoo.plugin import Code, Floats, Quantizer, hookimpl

class Halves(Quantizer):
    name = "halves"
    def quantize(self, weight, options, context):
        return Code(tuple(weight.shape), {"values": Floats.of(weight)})
    def reconstruct(self, code, params):
        return params["values"] + 0

@hookimpl
def vqzoo_quantizers():
    return [Halves()]
"""


def test_an_artifact_of_a_plugin_file_is_exported_with_the_file(tmp_path: Path) -> None:
    plugin = tmp_path / "halves.py"
    plugin.write_text(PLUGIN)
    model = timm.create_model("test_resnet", num_classes=7)
    small = vqzoo.compress(model, "halves", layers="dense", plugins=[plugin])
    small.save(tmp_path / "a")
    words = ["export", str(tmp_path / "a"), "--to", "pt2", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "--plugin" in done.stderr) == (1, True)
    done = CliRunner().invoke(app, [*words, "--plugin", str(plugin)])
    assert done.exit_code == 0, done.stderr
    exported = export(tmp_path / "a", "dense", tmp_path / "dense", plugins=[plugin])
    assert exported.weights == "dense"
    run = torch.export.load(tmp_path / "o/model.pt2").module()
    images = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(run(images), vqzoo.load(tmp_path / "a", plugins=[plugin])(images))


def test_a_folder_that_cannot_be_made_is_named_as_the_user_wrote_it(
    made: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file/out")
    for words in (
        ["export", str(made), "--to", "dense", "--out", out],
        ["run", "test_resnet", "--weights", "random", "-m", "km", "--out", out],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert f"{out} cannot be made" in done.stderr
        assert "partial" not in done.stderr
        assert "lock" not in done.stderr


def test_an_interrupted_export_says_so_and_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "build_with_codes", interrupt)
    words = ["export", str(made), "--to", "dense", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "error: interrupted"
    assert not list(tmp_path.iterdir())


def test_a_new_folder_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    for move in ("rename", "replace"):
        monkeypatch.setattr(Path, move, fail)
    with pytest.raises(OSError, match="no space"), new_folder(tmp_path / "a") as partial:
        (partial / "config.json").write_text("{}")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with new_folder(tmp_path / "a") as partial:
        (partial / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "config.json"]


def test_an_empty_folder_that_is_there_is_filled(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    inode = (tmp_path / "a").stat().st_ino
    with new_folder(tmp_path / "a") as partial:
        (partial / "config.json").write_text("{}")
    assert (tmp_path / "a").stat().st_ino == inode
    assert (tmp_path / "a" / "config.json").is_file()
