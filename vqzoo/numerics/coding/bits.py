"""Fixed-width bit streams: code i occupies bits i·bits to i·bits + bits - 1.

Bit b of the stream is bit b mod 8 (least significant first) of byte b div 8. The last byte is
padded with zeros.
"""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import narrow_and_wide
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.unpack import unpack_range
from vqzoo.numerics.threads import run_tasks

_TASK = 1 << 20  # codes a task, a multiple of 8: tasks meet at byte boundaries


def stream_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take: ⌈count·bits/8⌉."""
    return (count * bits + 7) // 8


@compiled()
def _pack(codes, bits, stream):  # type: ignore[no-untyped-def]
    held = np.uint64(0)
    filled = 0
    at = 0
    for i in range(codes.shape[0]):
        held |= np.uint64(codes[i]) << np.uint64(filled)
        filled += bits
        while filled >= 8:
            stream[at] = np.uint8(held & np.uint64(255))
            at += 1
            held >>= np.uint64(8)
            filled -= 8
    if filled > 0:
        stream[at] = np.uint8(held & np.uint64(255))


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes as a bit stream.

    Args:
        codes: any shape, any integer dtype; flattened.
        bits: bits a code, 1 to 16.

    Returns:
        (⌈count·bits/8⌉,) uint8.

    Raises:
        ValueError: a code is negative or needs more bits, or `bits` is out of range.
    """
    _check_bits(bits)
    flat = codes.detach().cpu().reshape(-1)
    count = flat.numel()
    stream = torch.empty(stream_bytes(count, bits), dtype=torch.uint8)
    array, target = flat.numpy(), stream.numpy()

    def work(start: int) -> None:
        part = array[start : start + _TASK]
        low, high = int(part.min()), int(part.max())
        if low < 0 or high >= 1 << bits:
            raise ValueError(f"codes from {low} to {high} do not fit {bits} bits")
        bounds = slice(start * bits // 8, stream_bytes(start + len(part), bits))
        if bits == 8:
            target[bounds] = part
        else:
            _pack(part.astype(np.int32), bits, target[bounds])

    run_tasks(work, range(0, count, _TASK))
    return stream


def unpack(stream: Tensor, bits: int, count: int) -> Tensor:
    """Unpack the `count` codes of a bit stream that `pack` wrote.

    Args:
        stream: (⌈count·bits/8⌉,) uint8.
        bits: bits a code, 1 to 16.
        count: number of codes.

    Returns:
        (count,), uint8 where bits <= 8, else int32.

    Raises:
        ValueError: the stream has another length or dtype, or padding bits that are not zero.
    """
    _check_stream(stream, bits, count)
    codes = torch.empty(count, dtype=torch.uint8 if bits <= 8 else torch.int32)
    source = stream.detach().cpu().contiguous().numpy()
    narrow, wide = narrow_and_wide(codes)

    def work(start: int) -> None:
        part = slice(start, start + _TASK)
        unpack_range(source, bits, start, min(_TASK, count - start), narrow[part], wide[part])

    run_tasks(work, range(0, count, _TASK))
    return codes


def _check_stream(stream: Tensor, bits: int, count: int) -> None:
    _check_bits(bits)
    if count < 0:
        raise ValueError(f"the number of codes must not be negative, not {count}")
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a bit stream must be 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    expected = stream_bytes(count, bits)
    if stream.numel() != expected:
        raise ValueError(
            f"{count} codes of {bits} bits take {expected} bytes, the stream has {stream.numel()}"
        )
    used = count * bits % 8
    if used and int(stream[-1]) >> used:
        raise ValueError("the padding bits of the stream are not zero")


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be between 1 and 16, not {bits}")
