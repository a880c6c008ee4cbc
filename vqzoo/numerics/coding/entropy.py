"""Symbol counts and entropy of codes."""

import numpy as np
from torch import Tensor

from vqzoo.numerics.arrays import Ints
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.threads import run_tasks

_TASK = 1 << 20  # codes a task


@compiled()
def _count(codes, counts):  # type: ignore[no-untyped-def]
    for i in range(codes.shape[0]):
        counts[codes[i]] += 1


def symbol_counts(values: Tensor, cardinality: int) -> Ints:
    """The number of occurrences of each symbol.

    Args:
        values: codes of any shape and integer dtype.
        cardinality: number of symbols, 1 to 65,536.

    Returns:
        (cardinality,) int64.

    Raises:
        ValueError: a code is not in 0 ... cardinality - 1, or the cardinality is out of range.
    """
    if not 1 <= cardinality <= 1 << 16:
        raise ValueError(f"the cardinality must be between 1 and 65,536, not {cardinality}")
    flat = values.detach().cpu().reshape(-1).numpy()

    def work(start: int) -> Ints:
        part = flat[start : start + _TASK]
        low, high = int(part.min()), int(part.max())
        if low < 0 or high >= cardinality:
            raise ValueError(f"codes from {low} to {high} are not all below {cardinality}")
        counts = np.zeros(cardinality, np.int64)
        _count(part.astype(np.int32), counts)
        return counts

    total = np.zeros(cardinality, np.int64)
    for counts in run_tasks(work, range(0, len(flat), _TASK)):
        total += counts
    return total


def entropy_bits(values: Tensor, cardinality: int) -> float:
    """The order-0 Shannon entropy of the codes, in bits, for all of them together.

    -Σ c·log2(c / n), with c the number of occurrences of a symbol among n codes: no code that
    assigns each symbol a fixed length needs less (Shannon 1948). Arguments and errors are those of
    `symbol_counts`.
    """
    counts = symbol_counts(values, cardinality)
    used = counts[counts > 0].astype(np.float64)
    return float(np.sum(used * np.log2(used.sum() / used))) if len(used) > 1 else 0.0
