"""`vqzoo doctor`: what a bug report needs, in any state of the installation."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app

Doctor = Callable[..., str]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Run `vqzoo doctor` in a process, with `tmp_path` as the home folder."""

    def call(*arguments: str, path: Path = tmp_path, **environment: str) -> str:
        python_path = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "vqzoo.cli.main", "doctor", *arguments],
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "HF_HOME": str(tmp_path / "hf"),
                "PYTHONPATH": python_path,
                **environment,
            },
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
        return done.stdout.decode()

    return call


def test_a_report_names_versions_caches_and_plugins(doctor: Doctor, tmp_path: Path) -> None:
    blob = tmp_path / "hf/hub/models--org--name/blobs/0"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(12_300))
    report = doctor(HF_TOKEN="hf_secret", HF_ENDPOINT="https://me:secret@hub.example/x")
    lines = report.splitlines()
    words = [line.split() for line in lines]
    for package in ("vqzoo", "torch", "timm", "numpy", "numba", "safetensors", "huggingface-hub"):
        assert [package, version(package)] in words
    (numba,) = [line for line in lines if line.startswith("  numba") and "free" in line]
    assert ": writable, " in numba
    (hub,) = [line for line in lines if line.startswith("  hub ")]
    assert "~/hf/hub: writable, 12.3 kB" in hub  # names of home folders are those of people
    assert str(tmp_path) not in report
    (vq,) = [line for line in lines if line.startswith("  vq ")]
    assert f"vqzoo {version('vqzoo')}, vqzoo_vq: method binary, km, pq, rq" in vq
    assert "https://hub.example/x" in report
    assert "secret" not in report
    assert lines[-2:] == ["problems", "  none found"]


def test_json_has_the_facts_behind_the_text() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    sections = json.loads(result.stdout)
    findings = {title: {f["name"]: f for f in sections[title]} for title in sections}
    assert findings["packages"]["torch"]["text"] == version("torch")
    assert findings["caches"]["numba"]["data"]["writable"] is True
    assert "method pq" in findings["plugins"]["vq"]["data"]["provides"]
    assert set(findings["extras"]["onnx"]["data"]) == {
        "onnx", "onnx-ir", "onnxruntime", "onnxscript",
    }  # fmt: skip
    assert not [f for named in findings.values() for f in named.values() if f["problem"]]


def test_problems_are_listed_at_the_end_with_their_cause(doctor: Doctor, tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "acme_vq-2.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-vq\nVersion: 2.1\n")
    (metadata / "entry_points.txt").write_text("[vqzoo]\nacme = acme_vq\n")
    (site / "acme_vq.py").write_text("raise ImportError('libacme.so.3 is missing')\n")
    (tmp_path / "file").write_text("not a folder")
    lines = doctor(path=site, HF_HOME=str(tmp_path / "file")).splitlines()
    hub, acme = lines[lines.index("problems") + 1 :]
    assert hub.startswith("  caches: hub: ~/file/hub: not writable (NotADirectoryError: ")
    cause = "ImportError: libacme.so.3 is missing"
    assert acme == f"  plugins: acme: acme-vq 2.1, acme_vq: left out: {cause}"
    assert any(line.startswith("  vq ") and "method binary" in line for line in lines)


def test_a_broken_torch_leaves_the_rest_of_the_report(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is missing')\n")
    report = json.loads(doctor("--json"))
    for section in ("threads", "devices", "plugins"):
        (finding,) = report[section]
        assert finding["problem"] is True
        assert "libtorch.so is missing" in finding["text"]
    packages = {finding["name"]: finding["text"] for finding in report["packages"]}
    assert packages["numpy"] == version("numpy")


def test_a_terminal_that_shows_ascii_only_gets_a_report(doctor: Doctor) -> None:
    report = doctor(PYTHONIOENCODING="ascii", VQZOO_PLUGINS="vq,größe")
    assert "ascii, a pipe" in report
    assert "VQZOO_PLUGINS names gr??e; " in report.splitlines()[-1]
