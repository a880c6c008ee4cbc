"""Memory from the start of a cache line on: vectors elsewhere touch two lines each."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import LINE


@compiled()
def aligned_zeros(count):  # type: ignore[no-untyped-def]
    """`np.zeros(count, np.float32)` at a multiple of 64 bytes; for kernels and for Python."""
    memory = np.zeros(count + LINE, np.float32)
    first = -(memory.ctypes.data // 4) % LINE
    return memory[first : first + count]
