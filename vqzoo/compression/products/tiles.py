"""A few rows of a coded matrix at a time, in the caches: the whole matrix never exists."""

import math
from threading import local

import torch
import torch.nn.functional as F
from torch import Tensor

from vqzoo.compression.products.kept import MOST_KEPT
from vqzoo.compression.products.prepared import Prepared
from vqzoo.numerics.decoding.panel_product import (
    TOGETHER,
    Panels,
    as_columns,
    multiply_rows,
    transposed,
)
from vqzoo.numerics.threads import run_pass_tasks

TILE = 1 << 18  # weights that are decoded at a time, 1 MiB of float32
_WIDE = 128  # columns; with each more, rows are decoded in larger tiles, so that fewer read columns
_TILES = 4  # in such a tile, at most
FEW_COLUMNS = 512  # of inputs, whose products are best taken from panels


class Tiles:
    """The rows of a coded matrix.

    Attributes:
        prepared: the code.
        step: rows are decoded in multiples of this; the whole matrix if it is their number.
        shape: (m, n) of the matrix.
        is_kept: whether the matrix is so small that it is decoded once and kept.
    """

    def __init__(self, prepared: Prepared, device: torch.device) -> None:
        """Take a code whose `row_step` is not 0, and the device where it is."""
        self.prepared, self._device, self._buffers = prepared, device, local()
        self.shape = prepared.compressed.code.shape
        self.step = min(prepared.row_step, self.shape[0])
        self.is_kept = device.type == "cpu" and math.prod(self.shape) <= MOST_KEPT

    @property
    def meets_columns(self) -> bool:
        """Whether products with columns in panels are likely to take least time."""
        if self.is_kept:
            return False
        return self.prepared.has_column_products or len(self.spans()) > 1

    def spans(self, unit: int = 1, tile: int = 0) -> list[tuple[int, int]]:
        """The first row of each tile, and the row behind its last one.

        Args:
            unit: tiles begin at multiples of it.
            tile: weights of a tile at most, if it has more than `unit` rows; `TILE` by default.
        """
        m, n = self.shape
        unit = math.lcm(unit, self.step)
        most = max(1, (tile or TILE) // n // unit) * unit
        best = math.lcm(unit, TOGETHER)
        if most > best:
            unit, most = best, most - most % best
        even = -(-m // -(-m // most))  # tiles of one size keep all threads busy
        height = -(-even // unit) * unit
        return [(start, min(start + height, m)) for start in range(0, m, height)]

    def decode(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` - 1, (stop - start, n) float32, in memory that is used again for
        the next ones that this thread decodes; nobody may write to the rows of a small matrix."""
        height, (m, n) = stop - start, self.shape
        if height == m and self.is_kept:
            prepared = self.prepared
            floats = prepared.current_floats()
            return prepared.kept.get(floats, lambda: prepared.decode(torch.empty(m, n)))
        buffer = getattr(self._buffers, "rows", None)
        if buffer is None or len(buffer) < height:
            buffer = self._buffers.rows = torch.empty(height, n, device=self._device)
        if height == m:
            return self.prepared.decode(buffer[:height])
        return self.prepared.decode_rows(start, stop, buffer[:height])

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x·Wᵀ + bias.

        Args:
            x: (r, n), of any float dtype, without gradient.
            bias: (m,), of the same dtype.

        Returns:
            (r, m), of the same dtype, to which W is rounded, too.
        """
        few = 0 < len(x) <= FEW_COLUMNS
        if few and self.meets_columns and takes_columns(x) and x.is_contiguous():
            return self.multiply_columns(transposed(x), bias).T.contiguous()
        spans = self.spans()
        if len(spans) == 1:
            return F.linear(x, self.decode(*spans[0]).to(x.dtype), bias)
        out = x.new_empty(len(x), self.shape[0])
        for start, stop in spans:
            decoded = self.decode(start, stop).to(x.dtype)
            shift = None if bias is None else bias[start:stop]
            out[:, start:stop] = F.linear(x, decoded, shift)
        return out

    def multiply_columns(self, panels: Panels, bias: Tensor | None = None) -> Tensor:
        """W·X + bias, by the method's own product, or the tiles shared out among threads.

        Args:
            panels: X, (n, count).
            bias: (m,), float32.

        Returns:
            (m, count), float32.
        """
        products = self.prepared.multiply_by_columns(panels)
        if products is not None:
            return products if bias is None else products.add_(bias.detach()[:, None])
        out = panels.products(self.shape[0])

        def work(span: tuple[int, int]) -> None:
            with torch.no_grad():  # each thread has a mode of its own
                multiply_rows(self.decode(*span), panels, out, span[0])

        half = -(-self.shape[0] // 2) * self.shape[1]
        most = TILE * min(_TILES, 1 + panels.count // _WIDE)
        run_pass_tasks(work, self.spans(tile=min(half, most)))
        products = as_columns(out, panels.count)
        return products.contiguous() if bias is None else products + bias.detach()[:, None]


def takes_columns(x: Tensor) -> bool:
    """Whether products with x can be taken from panels."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def tiles_of(prepared: Prepared, device: torch.device) -> Tiles | None:
    """The rows of a coded matrix; None where its method decodes the whole matrix only."""
    return Tiles(prepared, device) if prepared.row_step else None
