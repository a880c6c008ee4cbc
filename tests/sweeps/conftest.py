"""One small sweep, run by processes, for all tests of this folder."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app

# Two networks, of which one is calibrated; one cell cannot run.
GRID = """
models: [mobilenet_mini.fmnist, vit_mini.fmnist]
methods: [km, rtn]
ratios: [6]
layers: [largest:1]
images: 40
include:
- {model: vit_mini.fmnist, method: rtn, calibrate: fmnist, calibration_images: 16, layers: [head]}
- {model: vit_mini.fmnist, method: km, calibrate: fmnist, calibration_images: 16, layers: [head]}
- {model: vit_mini.fmnist, method: km, layers: [nowhere]}
"""
CELLS = 7


@dataclass(frozen=True)
class Swept:
    """A folder in which a sweep has run, and how it ended."""

    folder: Path
    exit_code: int
    stdout: str
    stderr: str

    @property
    def out(self) -> Path:
        """The sweep's folder."""
        return self.folder / "out"


def sweep(folder: Path, *arguments: str) -> Swept:
    """Run `vqzoo sweep` on the grid in a folder, into its folder `out`."""
    words = ["sweep", str(folder / "grid.yaml"), "--out", str(folder / "out"), *arguments]
    done = CliRunner().invoke(app, words)
    return Swept(folder, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The sweep, run by two processes."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    return sweep(folder, "--executor", "local:2", "--threads", "1")
