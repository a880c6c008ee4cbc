"""Planes of codes, against numpy's own bit packing."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqzoo.numerics.coding.bits import stream_bytes
from vqzoo.numerics.decoding.planes import from_planes, plane_widths, to_planes


def reference(codes: list[int], below: int, width: int) -> bytes:
    """The bits `below` to `below + width` - 1 of all codes, packed."""
    flags = [code >> bit & 1 for code in codes for bit in range(below, below + width)]
    return np.packbits(np.array(flags, np.uint8), bitorder="little").tobytes()


@given(st.data(), st.integers(1, 16))
def test_planes_equal_numpys_and_unpack_to_the_codes(data: st.DataObject, bits: int) -> None:
    codes = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=70))
    planes = to_planes(torch.tensor(codes), bits)
    below = bits
    for plane, width in zip(planes, plane_widths(bits), strict=True):
        below -= width
        assert bytes(plane.tolist()) == reference(codes, below, width)
    assert from_planes(planes, bits, (len(codes), 1)).tolist() == [[code] for code in codes]


@given(st.integers(1, 5000), st.integers(1, 16))
def test_planes_take_what_a_bit_stream_takes(count: int, bits: int) -> None:
    planes = to_planes(torch.zeros(count, dtype=torch.uint8), bits)
    exact = stream_bytes(count, bits)
    assert exact <= sum(plane.numel() for plane in planes) < exact + len(planes)
