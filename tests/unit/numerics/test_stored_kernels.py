"""Kernels that numba has stored are loaded without its means of compiling, and compute the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vqzoo.numerics.machine_code import can_link
from vqzoo.numerics.stored_kernels import can_load_alone

KERNELS = """
import json, sys
import numpy as np
from vqzoo.numerics.compiled import compiled

@compiled()
def squares(values):
    result = np.empty(len(values))  # numba's runtime allocates it
    for i in range(len(values)):
        result[i] = values[i] ** 2
    return result

@compiled()
def square(values, i):
    if i >= len(values):
        raise IndexError("beyond the end", i)  # reads the kernel's environment
    return squares(values)[i]

@compiled()
def next_square(values, i):
    return square(values, i + 1)
"""

CALLS = """
from llvmlite import binding

def counted(function):
    def call(*args):
        compiling.append(function.__name__)
        return function(*args)

    return call

compiling = []
binding.parse_bitcode = counted(binding.parse_bitcode)
engine = binding.ExecutionEngine
engine.finalize_object = counted(engine.finalize_object)  # LLVM generates the code of modules

from kernels import *

values = np.arange(5.0)
results = [squares(values).tolist(), float(square(values, 4))]
try:
    next_square(values, 4)
except IndexError as error:
    results.append(str(error))
"""

ANOTHER_KERNEL = """
@compiled()
def sum_of_squares(values):
    return squares(values).sum() + square(values, 1)

results.append(float(sum_of_squares(values)))
try:
    sum_of_squares(values[:1])
except IndexError as error:
    results.append(str(error))
"""

NO_ADDRESSES = """
from llvmlite import binding

binding.address_of_symbol = lambda name: None
"""

PRINTED = """
hits = [sum(kernel.stats.cache_hits.values()) for kernel in (squares, square, next_square)]
prepared = "numba.misc.cffiimpl" in sys.modules
arrays = "numba.np.arrayobj" in sys.modules  # what implements np.empty
print(json.dumps({
    "results": results,
    "hits": hits,
    "prepared": prepared,
    "arrays": arrays,
    "compiling": sorted(set(compiling)),
}))
"""

RESULTS = [[0, 1, 4, 9, 16], 16, "('beyond the end', 5)"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two kernels, none of them stored yet."""
    (tmp_path / "kernels.py").write_text(KERNELS)
    return tmp_path


def run(folder: Path, script: str) -> dict:
    """What a new process prints that shares its stored kernels with those before it."""
    (folder / "script.py").write_text(script + PRINTED)
    output = subprocess.run(
        [sys.executable, str(folder / "script.py")],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "stored")},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(output.stdout)


def test_stored_kernels_need_no_compiler(folder: Path) -> None:
    first = run(folder, CALLS)
    second = run(folder, CALLS)

    assert first["results"] == RESULTS
    assert first["hits"] == [0, 0, 0]
    assert first["prepared"]
    assert "finalize_object" in first["compiling"]
    assert second["results"] == RESULTS
    assert second["hits"] == [1, 1, 1]
    if not can_load_alone():
        pytest.skip("this version of numba loads stored kernels in its own way")
    assert not second["prepared"]
    if not can_link():
        pytest.skip("numba's engine loads stored kernels on this system")
    assert second["compiling"] == []
    assert not second["arrays"]


def test_new_kernels_call_stored_ones(folder: Path) -> None:
    run(folder, CALLS)

    both = run(folder, CALLS + ANOTHER_KERNEL)

    assert both["results"] == [*RESULTS, 31, "('beyond the end', 1)"]
    assert both["hits"] == [1, 1, 1]
    assert both["prepared"]
    assert both["compiling"] == ["finalize_object", "parse_bitcode"]


def test_kernels_that_cannot_be_linked_are_loaded_by_numba(folder: Path) -> None:
    run(folder, CALLS)

    second = run(folder, NO_ADDRESSES + CALLS)

    assert second["results"] == RESULTS
    assert second["hits"] == [1, 1, 1]
    if can_link():
        assert second["prepared"]
