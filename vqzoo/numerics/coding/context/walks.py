"""Which of a trellis's two quantizers each code of a matrix belongs to."""

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Codes
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT, walk_states
from vqzoo.numerics.threads import run_tasks


def walk_parities(codes: Codes, center: int) -> NDArray[np.uint8]:
    """(m, n) uint8: 0 for codes of even levels, 1 for codes of odd levels.

    Args:
        codes: (m, n).
        center: the code of level 0; only its parity matters.
    """
    odd = np.empty(codes.shape, np.uint8)

    def work(start: int) -> None:
        part = np.ascontiguousarray(codes[start : start + SEGMENT]).reshape(-1)
        target = odd[start : start + SEGMENT].reshape(-1)
        walk_states(part, codes.shape[1], np.int32(center & 1), target)

    run_tasks(work, range(0, len(codes), SEGMENT))
    return odd
