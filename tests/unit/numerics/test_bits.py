"""Bit streams, against numpy's own bit packing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqzoo.numerics.coding.bits import pack, stream_bytes, unpack

DTYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


def reference(codes: list[int], bits: int) -> bytes:
    flags = [code >> bit & 1 for code in codes for bit in range(bits)]
    return np.packbits(np.array(flags, np.uint8), bitorder="little").tobytes()


@given(st.data(), st.integers(1, 16))
def test_the_stream_equals_numpys_and_unpacks_to_the_codes(data: st.DataObject, bits: int) -> None:
    codes = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=70))
    stream = pack(torch.tensor(codes, dtype=torch.int64), bits)
    assert bytes(stream.tolist()) == reference(codes, bits)
    assert unpack(stream, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_shape_of_codes_do_not_matter(dtype: torch.dtype) -> None:
    codes = torch.arange(24).reshape(2, 3, 4)
    assert pack(codes.to(dtype), 5).tolist() == list(reference(list(range(24)), 5))
    assert pack(codes.transpose(0, 2), 5).equal(pack(codes.transpose(0, 2).contiguous(), 5))


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.uint8), (9, torch.int32)])
def test_unpacked_dtype(bits: int, dtype: torch.dtype) -> None:
    assert unpack(pack(torch.tensor([1, 2]), bits), bits, 2).dtype == dtype


@pytest.mark.parametrize("bits", [1, 3, 8, 11])
def test_a_stream_longer_than_a_task(bits: int) -> None:
    codes = torch.randint(0, 1 << bits, (2_500_003,), dtype=torch.int32)
    stream = pack(codes, bits)
    assert stream.numel() == stream_bytes(codes.numel(), bits)
    assert unpack(stream, bits, codes.numel()).to(torch.int32).equal(codes)


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [([-1], 8, "do not fit"), ([16], 4, "do not fit"), ([0], 0, "between"), ([0], 17, "between")],
)
def test_pack_refuses(codes: list[int], bits: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(torch.tensor(codes), bits)


@pytest.mark.parametrize(
    ("stream", "count", "message"),
    [([0, 0], 1, "take 1 bytes"), ([0], 3, "take 2 bytes"), ([255], 1, "padding"), ([], -1, "neg")],
)
def test_unpack_refuses(stream: list[int], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(torch.tensor(stream, dtype=torch.uint8), 5, count)


def test_unpack_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        unpack(torch.zeros(1), 8, 1)
