"""Kernels use what numba compiles for, which may be less than the processor has."""

import os
import subprocess
import sys


def features(**environment: str) -> list[str]:
    """Which of the features that kernels know they would use, in a new process."""
    script = (
        "from vqzoo.numerics.kernels.codegen import compiles_for\n"
        "print(*filter(compiles_for, ('avx2', 'avx512f', 'avx512vbmi')))"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(
        words, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.split()


def test_features_that_numba_leaves_out_are_not_used() -> None:
    assert features(NUMBA_ENABLE_AVX="0") == []
    assert features(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="+avx2") == ["avx2"]
