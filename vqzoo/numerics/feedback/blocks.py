"""Error feedback for any quantizer: a function chooses the values of a few columns at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from vqzoo.numerics.feedback.elimination import Elimination

# (columns (d,), block (m, d), metric (groups, d, d)) -> values (m, d)
Choose = Callable[[Tensor, Tensor, Tensor], Tensor]

LAZY = 128  # columns whose errors reach the columns behind them in one product


def feed_back_blocks(
    matrix: Tensor, elimination: Elimination, width: int, choose: Choose
) -> Tensor:
    """Quantize blocks of columns one after another, each error pushed into the blocks to come.

    Runs on the matrix's device. `choose` is called once for each block in the order of
    elimination. Row i of the block it sees is the row of the matrix plus what earlier errors ask
    of it; values v for it cost (w - v) D (w - v)ᵀ with D the metric of the row's group.

    Args:
        matrix: (m, n) float32; the first m / groups rows belong to the first group.
        elimination: of H, with blocks of `width` columns.
        width: columns quantized together; the last block may be shorter.
        choose: takes the block's columns (d,) int64, the block (m, d) float32 and the metric
            (groups, d, d) float32; returns the block's quantized values (m, d).

    Returns:
        (m, n) float32: the values chosen, columns in the matrix's own order.
    """
    groups, n = elimination.metric.shape
    rest = matrix[:, elimination.order].view(groups, -1, n)
    values = torch.empty_like(rest)
    lazy = max(1, LAZY // width) * width
    for first in range(0, n, lazy):
        last = min(first + lazy, n)
        errors = rest.new_empty(groups, rest.shape[1], last - first)  # times U_bb⁻¹
        for start in range(first, last, width):
            stop = min(start + width, last)
            block = rest[:, :, start:stop]
            metric = elimination.block_metric(start, stop).float()
            chosen = choose(elimination.order[start:stop], block.flatten(0, 1), metric)
            values[:, :, start:stop] = chosen.view_as(block)
            corner = elimination.factor[:, start:stop, start:stop]
            error = torch.linalg.solve_triangular(
                corner, block - values[:, :, start:stop], upper=True, left=False
            )
            errors[:, :, start - first : stop - first] = error
            rest[:, :, stop:last] -= error @ elimination.factor[:, start:stop, stop:last]
        rest[:, :, last:] -= errors @ elimination.factor[:, first:last, last:]
    return values.flatten(0, 1)[:, elimination.place]
