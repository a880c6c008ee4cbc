"""One-bit flips of a binary factor, each made only if it lowers the squared error."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.threads import Progress, run_tasks

_ROWS = 128  # rows a task
_BITS = 128  # bits that are tried on their Gram matrix before the residual is updated
_SWEEPS = 8  # over these bits, at most
_NOISE = 1e-7  # a change below this fraction of a row's error is rounding


def flip_bits(
    residual: Tensor,
    scales: Tensor,
    bits: Tensor,
    factors: Tensor,
    progress: Progress | None = None,
) -> None:
    """Flip bits of B in residual = A − diag(scales)·B·factors wherever that lowers the error.

    With e the residual of row i and s = 1 − 2·B[i, j], flipping B[i, j] changes ‖e‖² by
    −2·s·scales_i·<e, factors_j> + scales_i²·‖factors_j‖² (DiBA-Greedy, Ono 2026, arXiv
    2605.05994). Rows are independent. Bits are tried in blocks: within a block the products
    <e, factors_j> follow from the block's Gram matrix, so that a test costs O(1) and a flip
    O(block); then one matrix product applies the block's flips to the residual. The result is the
    same with any number of threads if torch computes with one.

    Args:
        residual: float32, (m, n), contiguous; changed in place.
        scales: float32, (m,).
        bits: uint8 of 0 and 1, (m, k), contiguous; changed in place.
        factors: float32, (k, n).
        progress: called as progress(done, total) from this thread.
    """
    m, k = bits.shape
    blocks = [slice(start, min(start + _BITS, k)) for start in range(0, k, _BITS)]
    grams = [factors[block] @ factors[block].T for block in blocks]
    least = _NOISE * residual.square().sum(dim=1)

    def work(start: int) -> None:
        rows = slice(start, min(start + _ROWS, m))
        row_residual = residual[rows]
        for block, gram in zip(blocks, grams, strict=True):
            products = row_residual @ factors[block].T
            block_bits = bits[rows, block].contiguous()
            change = torch.zeros_like(products)
            flipped = _flip(
                products.numpy(),
                gram.numpy(),
                scales[rows].numpy(),
                least[rows].numpy(),
                block_bits.numpy(),
                change.numpy(),
            )
            if flipped:
                bits[rows, block] = block_bits
                row_residual.addmm_(change, factors[block], alpha=-1)

    run_tasks(work, range(0, m, _ROWS), progress)


@compiled()
def _flip(products: Any, gram: Any, scales: Any, least: Any, bits: Any, change: Any) -> Any:
    """Sweep over the bits of each row until none flips; return the number of flips.

    `change` receives scale·(new bit − old bit); `products` is overwritten.
    """
    rows, count = products.shape
    flips = 0
    for i in range(rows):
        for _ in range(_SWEEPS):
            before = flips
            for j in range(count):
                step = scales[i] * np.float32(1 - 2 * np.int32(bits[i, j]))
                if step * (step * gram[j, j] - 2 * products[i, j]) < -least[i]:
                    bits[i, j] ^= 1
                    change[i, j] += step
                    flips += 1
                    for other in range(count):
                        products[i, other] -= step * gram[j, other]
            if flips == before:
                break
    return flips
