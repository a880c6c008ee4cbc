"""An environment of its own for other people's distributions."""

import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees what the running one has installed."""

    folder: Path

    @property
    def scripts(self) -> Path:
        """Where its programs are."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, or of its modules: `python -m ...`, without network."""
        return subprocess.run(
            [str(self.scripts / words[0]), *words[1:]],
            cwd=cwd or self.folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"},
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, what: Path) -> None:
        """Install a distribution or a wheel without looking anything up."""
        words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        done = self.run("python", *words, "--no-build-isolation", str(what))
        assert done.returncode == 0, done.stderr

    def vqzoo(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run vqzoo there."""
        return self.run("python", "-m", "vqzoo.cli.main", *words, cwd=cwd)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh environment; torch, vqzoo and hatchling are those of the running one."""
    folder = tmp_path / "environment"
    venv.create(folder, system_site_packages=True, with_pip=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder)})
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(here)]
    Path(purelib, "running.pth").write_text("\n".join(lines) + "\n")
    return Environment(folder)


# What makes a command of a README quick enough for a test.
_SMALL = ("--layers", "classifier.6", "--images", "100")


def type_in_readme(environment: Environment, folder: Path, cwd: Path) -> list[str]:
    """Run what a distribution's README tells readers to type, but for installing it.

    Returns:
        The commands that were run.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for line in commands:
        words = shlex.split(line)
        if words[0] == "pip":
            continue
        if words[0] == "pytest":
            done = environment.run("python", "-m", *words, "-p", "no:cacheprovider", cwd=folder)
        else:
            assert words[0] == "vqzoo", line
            small = _SMALL if words[1] == "run" else ()
            done = environment.vqzoo(*words[1:], *small, cwd=cwd)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return commands


Build = Callable[[Path], Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a wheel of a folder, without network."""

    def wheel(source: Path) -> Path:
        target = tmp_path / "wheels"
        words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
        done = subprocess.run(
            [sys.executable, *words, "--no-build-isolation", "-w", str(target), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (made,) = target.glob("*.whl")
        return made

    return wheel
