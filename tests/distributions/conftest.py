"""A virtual environment and a builder of wheels for each test."""

import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import Environment, run_pip


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh environment; torch, vqzoo and hatchling are those of the running one."""
    folder = tmp_path / "environment"
    venv.create(folder, system_site_packages=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder)})
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(here)]
    Path(purelib, "running.pth").write_text("\n".join(lines) + "\n")
    return Environment(folder)


Build = Callable[[Path], Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a wheel of a folder, without network."""

    def wheel(source: Path) -> Path:
        target = tmp_path / "wheels"
        run_pip("wheel", "-w", str(target), str(source))
        (built,) = target.glob("*.whl")
        return built

    return wheel
