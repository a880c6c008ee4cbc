"""A Hub on loopback, and the client in this process made to use it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.testing.hub.client import use_hub
from vqzoo.testing.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, a cache of its own, and no waiting between the client's retries."""
    with HubServer() as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        yield server


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
