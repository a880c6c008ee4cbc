"""Triton's kernels on machines without a GPU: interpreted, and compiled to machine code."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vqzoo.errors import VqzooWarning
from vqzoo.numerics.accelerated import accelerators

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed (it comes with torch for CUDA)"
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_vqzoo_does_not_import_the_kernels_of_triton() -> None:
    loaded = run(
        "-c", "import sys, vqzoo, vqzoo.numerics.clustering.kmeans; print(*sys.modules)"
    ).stdout
    assert "vqzoo.numerics.accelerated.torch_kernels" in loaded
    assert "vqzoo.numerics.accelerated.triton_kernels" not in loaded


def test_plain_torch_is_used_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerators.kernels_for(torch.device("mps"), 4) is accelerators.TORCH
    monkeypatch.setattr(accelerators, "find_spec", lambda name: None)
    assert accelerators.kernels_for(torch.device("cuda", 98), 4) is accelerators.TORCH


@needs_triton
def test_plain_torch_is_used_with_a_warning_if_triton_fails() -> None:
    with pytest.warns(VqzooWarning, match="cuda:99 .* plain torch"):
        assert accelerators.kernels_for(torch.device("cuda", 99), 4) is accelerators.TORCH


@pytest.mark.slow
@needs_triton
def test_interpreted() -> None:
    result = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", f"{HERE}/interpreted_triton.py"),
        TRITON_INTERPRET="1",
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@needs_triton
def test_compiled(tmp_path: Path) -> None:
    result = run(f"{HERE}/compiled_triton.py", TRITON_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
