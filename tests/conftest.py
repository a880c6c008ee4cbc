"""What several tests share: the command line as users run it, and small models."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import settings
from safetensors.torch import save_file

from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

# No deadlines: the first example may compile a kernel, and machines are busy.
settings.register_profile("vqzoo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("vqzoo")

Vqzoo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def vqzoo(tmp_path: Path) -> Vqzoo:
    """Run `vqzoo` in a process of its own, in an empty folder, without network."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vqzoo.cli.main", *arguments],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished artifact of a small network with weights of its own, as `vqzoo run` leaves it."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(5)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "mine.safetensors")
    fields = {
        "model": "test_resnet",
        "checkpoint": folder / "mine.safetensors",
        "method": "pq",
        "options": {"k": 16, "d": 4},
        "layers": ("all",),
    }
    return run(make_recipe(fields), SilentWatcher(), out=folder / "artifact").folder


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "artifact"))
