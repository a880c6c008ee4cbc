"""What several tests share: the command line as users run it, and small models."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

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
