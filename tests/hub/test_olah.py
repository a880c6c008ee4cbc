"""What a push left on the loopback Hub, read from another server: olah, an independent
implementation of the Hub's reading half, serving the artifact from a git repository with LFS."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vqzoo import load
from vqzoo.hub.repository import push
from vqzoo.testing.hub.server import HubServer
from vqzoo.testing.hub.store import StoredFile

REPO = "org/small"
CONFIG = """
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{home}/cache"
mirrors-path = ["{home}/mirrors"]
[accessibility]
offline = true
"""
PULL_AND_LOAD = """
import sys, torch, vqzoo
from typer.testing import CliRunner
from vqzoo.cli.main import app
repo, commit = sys.argv[1:]
pulled = CliRunner().invoke(app, ["pull", repo, "--out", "pulled"])
assert pulled.exit_code == 0, pulled.stderr
model = vqzoo.load(f"{repo}@{commit}")
torch.save((model(torch.load("images.pt")), model.vqzoo_commit), "logits.pt")
"""


def git(repo: Path, *words: str) -> str:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    line = ["git", *who, "-c", "core.autocrlf=false", *words]
    return subprocess.run(line, cwd=repo, check=True, capture_output=True, text=True).stdout.strip()


def commit_with_lfs(repo: Path, files: dict[str, StoredFile]) -> str:
    """Commit files to a new git repository as git-lfs would, and return the commit."""
    repo.mkdir(parents=True)
    git(repo, "init", "--quiet", "--initial-branch=main")
    for name, file in files.items():
        (repo / name).write_bytes(file.pointer if file.sha256 else file.data)
        if file.sha256:
            place = repo / ".git/lfs/objects" / file.sha256[:2] / file.sha256[2:4] / file.sha256
            place.parent.mkdir(parents=True)
            place.write_bytes(file.data)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message", "an artifact")
    return git(repo, "rev-parse", "HEAD")


@pytest.fixture
def olah(tmp_path: Path) -> Iterator[str]:
    """The address of olah, which serves the git repositories under `mirrors/models`."""
    beside = Path(sys.executable).parent
    program = shutil.which("olah-cli", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if program is None or shutil.which("git") is None:
        pytest.skip("needs git, and olah (pip install olah) here or in a venv on PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "olah.toml").write_text(CONFIG.format(port=port, home=tmp_path))
    # A client put before the installed one by PYTHONPATH is not olah's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "olah.txt").open("w") as output:
        server = subprocess.Popen(
            [program, "--config", "olah.toml", "--log-path", "logs"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(port, server, tmp_path / "olah.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes], output: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"olah does not serve: {output.read_text()}")


def test_olah_serves_what_was_pushed(olah: str, hub: HubServer, made: Path, tmp_path: Path) -> None:
    pushed = push(made, REPO).commit
    files = dict(hub.repos[REPO].commits[pushed].files)
    commit = commit_with_lfs(tmp_path / "mirrors/models" / REPO, files)
    environment = {**hub.environment(tmp_path / "home", token=""), "HF_ENDPOINT": olah}
    exchanges = len(hub.exchanges)

    images = torch.randn(2, 3, 160, 160)
    torch.save(images, tmp_path / "images.pt")
    subprocess.run(
        [sys.executable, "-c", PULL_AND_LOAD, REPO, commit],
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=True,
    )
    pulled = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()}
    assert pulled == hub.files(REPO)
    logits, loaded = torch.load(tmp_path / "logits.pt")
    assert torch.equal(logits, load(made)(images))
    assert loaded == commit
    assert len(hub.exchanges) == exchanges
