"""Where in a codebook the centroid of a code is."""

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import code_at


@compiled(forceinline=True)
def centroid_at(codes, at, look):  # type: ignore[no-untyped-def]
    """The number of values before the centroid of the code at position `at`.

    Args:
        look: (low, mask, most, d): the lowest bit of the code in its element, its bits, the last
            centroid, which larger codes read, and the values of one.
    """
    low, mask, most, d = look
    return min(code_at(codes, at) >> low & mask, most) * d
