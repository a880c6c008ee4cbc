"""Codes as planes of 8, 4, 2 and 1 bits, which torch's own operations unpack.

A runtime without bit streams of odd widths can shift and mask: a code of b bits is cut into the
powers of two that add up to b, the highest bits first; a plane holds 8/w codes of w bits a byte,
the first in the lowest bits. All planes together take as many bits a code as a bit stream.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDTHS = (8, 4, 2, 1)
_BYTES = range(256)


def plane_widths(bits: int) -> tuple[int, ...]:
    """The widths of the planes of codes of 1 to 16 bits, the highest bits first."""
    widths = [8] * (bits // 8)
    return (*widths, *(width for width in _WIDTHS[1:] if bits & width))


def to_planes(codes: Tensor, bits: int) -> list[Tensor]:
    """Pack codes.

    Args:
        codes: any shape, any integer dtype; flattened.
        bits: of a code, 1 to 16.

    Returns:
        A plane for each of `plane_widths(bits)`: (⌈count·width/8⌉,) uint8.
    """
    flat = codes.reshape(-1).int()
    planes: list[Tensor] = []
    below = bits
    for width in plane_widths(bits):
        below -= width
        values = (flat >> below) & ((1 << width) - 1)
        slots = 8 // width
        padded = F.pad(values, (0, -len(values) % slots)).view(-1, slots)
        shifts = torch.arange(0, 8, width, dtype=torch.int32, device=flat.device)
        planes.append((padded << shifts).sum(1).to(torch.uint8))
    return planes


def from_planes(planes: list[Tensor], bits: int, shape: tuple[int, ...]) -> Tensor:
    """Unpack what `to_planes` packed, in operations that torch can trace.

    Args:
        planes: uint8 each.
        bits: of a code.
        shape: of the codes.

    Returns:
        uint8 of that shape up to 8 bits, else int32.
    """
    count = torch.Size(shape).numel()
    widths = plane_widths(bits)
    parts = [_unpacked(*pair)[:count] for pair in zip(planes, widths, strict=True)]
    codes = parts[0]
    for part, width in zip(parts[1:], widths[1:], strict=True):
        codes = codes.int() * (1 << width) + part.int()
    return (codes.to(torch.uint8) if bits <= 8 else codes).view(shape)


def _unpacked(plane: Tensor, width: int) -> Tensor:
    """The values of a plane: by a table of all bytes, as not every runtime can shift."""
    if width == 8:
        return plane
    values = [
        [byte >> shift & ((1 << width) - 1) for shift in range(0, 8, width)] for byte in _BYTES
    ]
    table = torch.tensor(values, dtype=torch.uint8, device=plane.device)
    return F.embedding(plane.int(), table).reshape(-1)
