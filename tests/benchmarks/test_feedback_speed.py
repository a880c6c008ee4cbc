"""Error feedback onto a grid, beside GPTQ's loop in torch, on one layer of ResNet-50's shapes.

The peer is the loop of Frantar et al. 2022 (arXiv 2210.17323, algorithm 1): blocks of 128 columns,
whose errors reach the columns behind in one product.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from weights import SHAPES, weight

from vqzoo.numerics.feedback.elimination import Elimination, eliminate
from vqzoo.numerics.feedback.grid import Grid, feed_back_grid
from vqzoo.numerics.feedback.rates import laplacian
from vqzoo.numerics.threads import use_threads

LAYER = "resnet50.conv3x3"
BLOCK = 128
REACH = 7
ROUNDS = 3


def gptq(matrix: Tensor, elimination: Elimination, step: float) -> Tensor:
    """Levels (m, n), columns in the order of elimination."""
    rows, factor = matrix[:, elimination.order], elimination.factor[0]
    levels = torch.empty_like(rows)
    for start in range(0, rows.shape[1], BLOCK):
        stop = min(start + BLOCK, rows.shape[1])
        block, errors = rows[:, start:stop].clone(), torch.empty(len(rows), stop - start)
        inner = factor[start:stop, start:stop]
        for j in range(stop - start):
            chosen = (block[:, j] / step).round().clamp(-REACH, REACH)
            levels[:, start + j] = chosen
            error = (block[:, j] - step * chosen) / inner[j, j]
            block[:, j:] -= error[:, None] * inner[j, j:]
            errors[:, j] = error
        rows[:, stop:] -= errors @ factor[start:stop, stop:]
    return levels


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, the least of several."""
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def test_error_feedback(capsys: pytest.CaptureFixture[str]) -> None:
    m, n = SHAPES[LAYER]
    matrix = weight(LAYER).contiguous()
    x = torch.randn(2 * n, n, generator=torch.Generator().manual_seed(1)).relu_()
    elimination = eliminate([(x.mT @ x / len(x))[None]], 0.1)
    step = float(matrix.std()) / 2

    def by_vqzoo(trellis: bool) -> Callable[[], object]:
        steps = np.full(m, step, np.float32), np.ones(n, np.float32)
        grid, rates = Grid(*steps, REACH, trellis), laplacian(1.0, m, n, REACH)
        alike = np.ones(m)
        return lambda: feed_back_grid(matrix, elimination, grid, alike, 1e-9, rates)

    with use_threads(1):
        for trellis in (False, True):
            by_vqzoo(trellis)()  # compiles
        peer = seconds(lambda: gptq(matrix, elimination, step))
        plain, walked = seconds(by_vqzoo(False)), seconds(by_vqzoo(True))
    each = 1e9 / matrix.numel()
    with capsys.disabled():
        print(
            f"\n{LAYER}, {m} x {n}, one thread: GPTQ in torch {each * peer:.0f} ns a weight, "
            f"plain grid {each * plain:.0f} ({peer / plain:.1f} times as fast), "
            f"trellis {each * walked:.0f} ({peer / walked:.1f} times)"
        )
