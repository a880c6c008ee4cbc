"""Matrix products that are the same to the bit with any number of threads."""

import torch
from torch import Tensor

from vqzoo.numerics.threads import run_tasks

_ROWS = 256  # rows of the result a task


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, (m, k) by (k, n), in tasks of whole rows; call it within `one_torch_thread`."""
    result = a.new_empty(a.shape[0], b.shape[1])

    def work(start: int) -> None:
        rows = slice(start, start + _ROWS)
        torch.mm(a[rows], b, out=result[rows])

    run_tasks(work, range(0, a.shape[0], _ROWS))
    return result


def gram(a: Tensor) -> Tensor:
    """aᵀ·a, (k, k) of (m, k), in tasks of the upper triangle; call it within `one_torch_thread`."""
    k = a.shape[1]
    result = a.new_empty(k, k)

    def work(start: int) -> None:
        stop = min(start + _ROWS, k)
        strip = a[:, start:stop].T @ a[:, start:]
        result[start:stop, start:] = strip
        result[start:, start:stop] = strip.T

    run_tasks(work, range(0, k, _ROWS))
    return result
