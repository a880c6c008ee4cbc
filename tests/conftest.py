"""What several tests share: workers, the command line as users run it, and a small artifact.

Fixtures import torch and timm, not this module: the process that only waits for the workers needs
neither.
"""

import gc
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from huggingface_hub import constants
from hypothesis import settings
from PIL import Image
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe

# No deadlines: the first example may compile a kernel, and machines are busy.
settings.register_profile("vqzoo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("vqzoo")

MOST_WORKERS = 8  # of about 1 GB each


def pytest_configure() -> None:
    """Heed Ctrl-C, and let children do so: shells let processes in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector the half a million objects of the modules that tests import: to
    visit them again and again takes a sixth of the time of the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the second worker begin with tests that start processes: what the first one compiles
    meanwhile, the second loads."""
    first = items[0].path if items else None
    items.sort(key=lambda item: (item.path != first, "distributions" not in item.path.parts))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto`: a worker per core for folders, none for single files, which end sooner without."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist itself reads it
    if all(".py" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_WORKERS, cores or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[object]) -> None:
    """Give each worker one thread of torch's: idle OpenMP threads spin, and would slow the others.

    Workers and the processes that they start inherit the environment.
    """
    if len(specs) > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def plain_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Output looks the same from every terminal, all installed plugins are loaded, and nothing is
    kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "VQZOO_PLUGINS"):
            patch.delenv(name, raising=False)
        patch.setenv("VQZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_picture_for_all_cards() -> Iterator[None]:
    """Give the card of every artifact the same small picture instead of a plot of its bytes, which
    takes half of the time of a run on a small network. tests/report/test_card.py draws the plot."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "png")

    def draw(artifact: object, target: Path | IO[bytes]) -> None:
        if isinstance(target, Path):
            target.write_bytes(buffer.getvalue())
        else:
            target.write(buffer.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqzoo.report.card.draw_bytes", draw)
        yield


Vqzoo = Callable[..., Any]


@pytest.fixture
def vqzoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vqzoo:
    """Run `vqzoo` in `tmp_path`, its output piped, without network; keywords set its environment.

    It gives the `Result` of typer's `CliRunner`; an exception that is no exit is raised.
    """

    def call(*arguments: str, **environment: str) -> Any:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            for name, value in environment.items():
                patch.setenv(name, value)
            return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a finished run on a small network; its weights are a checkpoint."""
    import timm
    import torch
    from safetensors.torch import save_file

    from vqzoo.runs.run import run

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
    """A copy of that artifact, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "artifact"))
