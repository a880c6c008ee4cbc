"""Virtual environments that distributions are installed into, and what their READMEs say."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


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

    def install(self, source: Path) -> None:
        """Install a distribution's folder or wheel, with the pip of the running environment."""
        run_pip("--python", str(self.scripts / "python"), "install", str(source))

    def vqzoo(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run vqzoo there."""
        return self.run("python", "-m", "vqzoo.cli.main", *words, cwd=cwd)


def run_pip(*words: str) -> None:
    """Run pip, quietly, without dependencies and without network."""
    quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *quiet], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# What makes a command of a README quick enough for a test.
_SMALL = ("--layers", "classifier.6", "--images", "100")


def type_in_readme(environment: Environment, folder: Path, cwd: Path) -> dict[str, str]:
    """Run what a distribution's README tells readers to type, except for `pip`.

    Returns:
        command -> what it printed.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    printed = {}
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
        printed[line] = done.stdout + done.stderr
    return printed
