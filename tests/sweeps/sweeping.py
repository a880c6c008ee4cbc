"""A small grid, and `vqzoo sweep` on it."""

from dataclasses import dataclass
from pathlib import Path

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
ONE_WORKER = ("--executor", "local:1", "--threads", "1")
TWO_WORKERS = ("--executor", "local:2", "--threads", "1")


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
