"""Error feedback onto a uniform grid whose steps are a factor a row times a factor a column."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Codes, as_float32
from vqzoo.numerics.decoding.planes import from_planes
from vqzoo.numerics.feedback.elimination import Elimination
from vqzoo.numerics.feedback.rates import Rates
from vqzoo.numerics.kernels.feedback.rows import feed_back_rows
from vqzoo.numerics.kernels.feedback.trellis import NEXT, SEGMENT, feed_back_trellis, trellis_levels
from vqzoo.numerics.threads import run_tasks
from vqzoo.numerics.tracing import is_traced

_MAX_COST = (
    1e15  # bits that a step of error is worth: far beyond any code's, and squares fit float32
)
_ROWS = 64  # a task, without a trellis: they share what the cache holds of U


@dataclass(frozen=True)
class Grid:
    """Where the values of codes lie: at a level times the row's step times the column's.

    Attributes:
        row_steps: (m,) float32, positive.
        column_steps: (n,) float32, positive.
        reach: codes go from -reach to reach.
        trellis: whether levels are those of a trellis (see `kernels/feedback/trellis.py`), or the
            codes themselves.
    """

    row_steps: NDArray[np.float32]
    column_steps: NDArray[np.float32]
    reach: int
    trellis: bool


def feed_back_grid(
    shrunk: Tensor,
    elimination: Elimination,
    grid: Grid,
    row_weights: NDArray[np.float64],
    price: float,
    rates: Rates,
    progress: Callable[[int, int], None] | None = None,
) -> Codes:
    """Quantize a matrix at the least cost of errors and bits, column by column.

    Each code is chosen at the cost ½ g_i D_j e² + price·bits, and its error is pushed into the
    columns to come. A trellis weighs whole walks down a column. With a ridge, the choice leaves it
    out of the cost: bits are counted already (see `elimination`).

    Args:
        shrunk: what `elimination.shrunk` makes of the matrix, (m, n) float32; the first m / groups
            rows belong to the first group.
        elimination: of H.
        grid: where codes lie.
        row_weights: g, (m,).
        price: λ, what a bit is worth in units of ½ g H e²; positive.
        rates: what codes cost in bits.
        progress: called with (rows done, rows).

    Returns:
        (m, n) int32, columns in the matrix's own order.
    """
    weights = as_float32(shrunk)
    order, place = elimination.order.cpu().numpy(), elimination.place.cpu().numpy()
    factors = elimination.factor.cpu().numpy()
    m, n = weights.shape
    groups = (np.arange(m) // (m // len(factors))).astype(np.int32)
    column_steps = grid.column_steps[order]
    free = elimination.free_metric.cpu().numpy()
    stretch = (elimination.metric.cpu().numpy() / free).astype(np.float32)
    column_costs = free * column_steps.astype(np.float64) ** 2
    peak = column_costs.max()
    column_costs = (column_costs / peak).astype(np.float32)
    row_costs = 0.5 * peak / price * row_weights * grid.row_steps.astype(np.float64) ** 2
    row_costs = np.minimum(row_costs, _MAX_COST).astype(np.float32)
    column_classes = rates.column_classes[order]
    codes = np.empty((m, n), np.int32)

    def work(part: slice) -> None:
        rows = np.ascontiguousarray(weights[part][:, order])
        chosen = np.empty(rows.shape, np.int32)
        which = groups[part]
        common = (
            rows, factors[which[0] : which[-1] + 1], which - which[0], grid.row_steps[part],
            column_steps, row_costs[part], column_costs[which[0] : which[-1] + 1],
            stretch[which[0] : which[-1] + 1], rates.bits,
            rates.row_classes[part], column_classes,
        )  # fmt: skip
        if grid.trellis:
            feed_back_trellis(*common, chosen)
        else:
            feed_back_rows(*common, chosen)
        codes[part] = chosen[:, place]

    rows = SEGMENT if grid.trellis else _ROWS
    run_tasks(work, [slice(at, min(at + rows, m)) for at in range(0, m, rows)], progress)
    return codes


def levels(codes: Tensor, reach: int, trellis: bool) -> Tensor:
    """The levels that codes stand for, in units of the step.

    Args:
        codes: (m, n) integers, 0 to 2·reach; `reach` is the code of 0.

    Returns:
        (m, n) float32 on the device of the codes.
    """
    if not trellis:
        return codes.float() - reach
    if codes.device.type != "cpu" or is_traced():
        return walk(codes.int() - reach)
    array = codes.contiguous().numpy()
    array = array if array.dtype == np.uint8 else array.astype(np.int32, copy=False)
    result = np.empty(array.shape, np.float32)

    n, center = array.shape[1], np.int32(reach)

    def work(at: int) -> None:
        part, levels = array[at : at + SEGMENT].reshape(-1), result[at : at + SEGMENT]
        trellis_levels(part, (32, n), len(levels), (0, n), center, levels.reshape(-1))

    run_tasks(work, range(0, len(array), SEGMENT))
    return torch.from_numpy(result)


def walk(codes: Tensor) -> Tensor:
    """Levels of a trellis in torch's operations: the codes around 0, all segments at a time.

    The machine is linear over GF(2): state ← A state + 2 parity. Whether a state is odd is so a
    product of the parities before it with a fixed matrix, modulo 2.
    """
    m, n = codes.shape
    segments = -(-m // SEGMENT)
    padded = torch.nn.functional.pad(codes, (0, 0, 0, segments * SEGMENT - m))
    steps = padded.view(segments, SEGMENT, n).float()
    odd = from_planes([_odd_after().to(codes.device)], 1, (SEGMENT, SEGMENT)).float()
    odd = odd @ steps.remainder(2)
    return (2 * steps - odd.remainder(2) * steps.sign()).view(-1, n)[:m]


def _odd_after() -> Tensor:
    """(SEGMENT, SEGMENT) bits: 1 at (i, j) where a 1 as the parity of code j makes state i odd
    and no other parity is 1.

    Exported networks have this constant for each layer, so it is a plane of 2 kB.
    """
    answers = np.zeros(SEGMENT + 1, np.uint8)
    state = NEXT[0, 1]
    for i in range(1, len(answers)):
        answers[i] = state & 1
        state = NEXT[state, 0]
    distances = np.subtract.outer(np.arange(SEGMENT), np.arange(SEGMENT))
    bits = answers[np.maximum(distances, 0)].reshape(-1)
    return torch.from_numpy(np.packbits(bits, bitorder="little"))
