"""Output for terminals, pipes and scripts, and what is imported for it."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ["run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--layers", "all"]


def test_help_and_inspect_import_neither_torch_nor_timm(artifact: Path) -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from vqzoo.cli.main import app\n"
        "for arguments in (['--help'], ['run', '--help'], ['inspect', sys.argv[1]]):\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'timm', 'numba', 'numpy', 'vqzoo_vq'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(artifact)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_results_go_to_stdout_without_control_codes(vqzoo) -> None:
    result = vqzoo(*RUN, TERM="xterm-256color")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert "whole file" in result.stdout
    assert "fc" in result.stdout
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["conv1.0"]  # a note


def test_json_is_the_only_output_on_stdout(vqzoo) -> None:
    record = json.loads(vqzoo(*RUN, "--json").stdout)
    assert record["method"] == "km"


def test_a_narrow_terminal_keeps_every_figure(vqzoo) -> None:
    wide = vqzoo(*RUN, "--out", "a").stdout
    narrow = vqzoo(*RUN, "--out", "b", COLUMNS="60").stdout
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 60
    figures = [word for word in wide.split() if word.endswith("x") and word[:-1].isdecimal()]
    assert all(figure in narrow for figure in figures)


def test_a_wide_terminal_shows_the_options_that_were_chosen(vqzoo) -> None:
    pq = [*RUN[:4], "-m", "pq", "--ratio", "8", "--layers", "all"]
    widths = {"a": "200", "b": "100", "c": "60"}
    wide, middle, narrow = (vqzoo(*pq, "--out", o, COLUMNS=w).stdout for o, w in widths.items())
    record = json.loads(vqzoo(*pq, "--out", "d", "--json").stdout)
    for row in record["layers"]:
        chosen = f"d={row['options']['d']} k={row['options']['k']}"
        for shown in (wide, middle):
            (line,) = [line for line in shown.splitlines() if line.startswith(row["name"] + " ")]
            assert all(word in line.split() for word in chosen.split())
    assert "codebook=layer" in wide
    assert "codebook=layer" not in middle
    assert " k=" not in narrow
    assert all(len(line.rstrip()) <= 100 for line in middle.splitlines())


def test_colour_follows_the_environment(vqzoo) -> None:
    assert "\x1b[" in vqzoo("methods", FORCE_COLOR="1", TERM="xterm-256color").stdout
    plain = vqzoo("methods", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[3" not in plain


def test_methods_lists_and_explains(vqzoo) -> None:
    listed = vqzoo("methods").stdout
    for name in ("binary", "km", "pq", "rq", "rtn", "svd"):
        assert name in listed
    explained = vqzoo("methods", "pq").stdout
    for text in ("-o d=", "-o k=", "256", "sub-vector", "1412.6115"):
        assert text in explained


def test_plugins_and_models_are_listed(vqzoo) -> None:
    assert "vqzoo_vq" in vqzoo("plugins").stdout
    models = vqzoo("models", "alexnet").stdout.splitlines()
    assert any(line.startswith("alexnet_mini.fmnist") for line in models)
    assert "alexnet.tv_in1k" in [line.split()[0] for line in models]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["at its end", "while it prints"])
def test_a_closed_pipe_is_not_an_error(unbuffered: str, artifact: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m vqzoo.cli.main inspect {artifact} | true",
        shell=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_control_characters_of_an_artifact_are_not_printed(vqzoo, artifact: Path) -> None:
    config = json.loads((artifact / "config.json").read_text())
    config["vqzoo"]["method"] = "\x1b]0;owned\x07[bold]km"
    (artifact / "config.json").write_text(json.dumps(config))
    refused = vqzoo("inspect", str(artifact))
    assert refused.exit_code == 1
    assert "\x1b" not in refused.stdout + refused.stderr

    unseal_record(artifact)
    shown = vqzoo("inspect", str(artifact))
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "[bold]km" in shown.stdout


def unseal_record(artifact: Path) -> None:
    """Leave out the header's hash of the record, as files written before there was one do."""
    weights = artifact / "vqzoo.safetensors"
    raw = weights.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["vqzoo"])
    del metadata["record_sha256"]
    header["__metadata__"]["vqzoo"] = json.dumps(metadata, sort_keys=True)
    text = json.dumps(header).encode()
    raw = struct.pack("<Q", len(text)) + text + raw[8 + length :]
    weights.write_bytes(raw)
    config = json.loads((artifact / "config.json").read_text())
    config["vqzoo"] |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (artifact / "config.json").write_text(json.dumps(config))
