"""Bad input: one clear line, the right exit code, no partial files."""

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from vqzoo.cli.main import app

RUN = "run test_resnet --weights random -m pq"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("run alexnt -m pq", 2, "did you mean alexnet"),
        ("run resnet18.a9_in1k -m pq", 2, "resnet18.a1_in1k"),
        ("run test_resnet --weights random -m pqq", 2, "did you mean pq"),
        ("run test_resnet --weights random", 2, "--method"),
        (f"{RUN} -o q=3", 2, "it has: d, k"),
        (f"{RUN} -o k=zero", 2, "k='zero'"),
        (f"{RUN} -o k", 2, "name=value"),
        (f"{RUN} --ratio 0.5", 2, "ratio"),
        (f"{RUN} --layers layr*", 2, "matches no layer"),
        (f"{RUN} --layers largest:none", 2, "largest:N"),
        (f"{RUN} --rule conv1", 2, "LAYERS=METHOD"),
        (f"{RUN} --rule nope*=km", 2, "matches no layer"),
        (f"{RUN} --rule conv1.0=kmm", 2, "did you mean km"),
        (f"{RUN} --packing zip", 2, "no packing called 'zip'"),
        (f"{RUN} --transform spin", 2, "no transform called 'spin'"),
        (f"{RUN} --device abacus", 2, "abacus"),
        (f"{RUN} --data mnist", 2, "unknown data"),
        (f"{RUN} --model-arg depth=900", 2, "test_resnet"),
        (f"{RUN} --recipe nowhere.yaml", 2, "nowhere.yaml"),
        (f"{RUN} --data imagefolder:nowhere", 1, "nowhere"),
        (f"{RUN} --data imagefolder:empty", 1, "no images"),
        ("run test_resnet -m pq --checkpoint nowhere.pth", 2, "does not exist"),
        ("run test_resnet -m pq --checkpoint text.pth", 1, "checkpoint text.pth cannot be read"),
        ("run test_resnet -m pq --checkpoint cut.safetensors", 1, "cut.safetensors cannot be read"),
        ("run test_resnet -m pq --checkpoint other.safetensors", 1, "does not fit test_resnet"),
        ("run test_resnet -m pq --checkpoint nan.safetensors --layers all", 1, "NaN"),
        (f"{RUN} --out file.txt", 2, "not an artifact"),
        (f"{RUN} --out s3://bucket/x", 2, "`vqzoo sweep` and its grid write to URLs"),
        ("compare test_resnet --weights random --out hf://a/b", 2, "write to URLs"),
        ("zoo build --out hf://datasets/a/b", 2, "write to URLs"),
        ("eval nowhere/else/either", 2, "does not exist"),
        ("eval nowhere/else", 1, "HF_HUB_OFFLINE"),
        ("eval test_resnet.r160_in1k", 1, "--checkpoint"),
        ("eval empty --data fmnist", 1, "not an artifact"),
        ("inspect empty", 1, "not an artifact"),
        ("inspect nowhere", 2, "not a folder"),
        ("methods nope", 2, "There are:"),
        ("models nothing-like-this", 2, "no model matches"),
        ("compare test_resnet --weights random --ratios x", 2, "--ratios"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(
    command: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("empty").mkdir()
    Path("file.txt").write_text("mine")
    Path("text.pth").write_text("not a checkpoint")
    save_file({"weight": torch.zeros(3)}, "other.safetensors")
    Path("cut.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:-4])
    _save_nan_checkpoint(Path("nan.safetensors"))
    before = sorted(path.name for path in Path().iterdir())

    result = CliRunner().invoke(app, command.split())

    assert result.exit_code == code, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert says in errors[0]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == before


def _save_nan_checkpoint(path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet").state_dict()
    state["fc.weight"][3, 4] = float("nan")
    save_file(state, path)


def test_a_full_disk_leaves_no_artifact(vqzoo, tmp_path: Path) -> None:
    """Files of at most 20 kB stand for a disk that fills up while the artifact is written."""
    command = [*RUN.split(), "--layers", "all", "--out", "a"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        result = vqzoo(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "a").exists()
    finished = vqzoo(*command)
    assert finished.exit_code == 0, finished.stderr
    assert (tmp_path / "a/config.json").exists()
