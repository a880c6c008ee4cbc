"""A few rows of a coded matrix at a time, in the caches: the whole matrix never exists."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vqzoo.compression.decode import decode_rows, row_step, with_floats
from vqzoo.numerics.threads import one_torch_thread, run_tasks
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins

TILE = 1 << 18  # weights that are decoded at a time, 1 MiB of float32
_FEW = 32  # inputs of a product that takes less time than decoding


class Tiles:
    """The rows of a coded matrix.

    Attributes:
        step: rows are decoded in multiples of this; the whole matrix if it is their number.
        shape: (m, n) of the matrix.
    """

    def __init__(
        self, compressed: MethodCode, plugins: Plugins, params: Mapping[str, Tensor]
    ) -> None:
        """Take a code whose `row_step` is not 0.

        Args:
            compressed: the code of an (m, n) matrix.
            plugins: the installed methods.
            params: replacements for any of the tensors of `trainable`, float32, by name.
        """
        self._code, self._plugins = with_floats(compressed, params), plugins
        self.shape = compressed.code.shape
        self.step = min(row_step(compressed, plugins), self.shape[0])

    def spans(self, unit: int = 1) -> list[tuple[int, int]]:
        """The first row of each tile, and the row behind its last one.

        Args:
            unit: tiles begin at multiples of it.
        """
        m, n = self.shape
        unit = math.lcm(unit, self.step)
        height = max(1, TILE // n // unit) * unit
        return [(start, min(start + height, m)) for start in range(0, m, height)]

    def decode(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` - 1, (stop - start, n) float32."""
        return decode_rows(self._code, self._plugins, start, stop)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x·Wᵀ + bias.

        Args:
            x: (r, n), of any float dtype, without gradient.
            bias: (m,), of the same dtype.

        Returns:
            (r, m), of the same dtype, to which W is rounded, too.
        """
        out = x.new_empty(len(x), self.shape[0])

        def work(span: tuple[int, int]) -> None:
            with torch.no_grad():  # each thread has a mode of its own
                rows = self.decode(*span).to(x.dtype)
                shift = None if bias is None else bias[slice(*span)]
                out[:, slice(*span)] = F.linear(x, rows, shift)

        spans = self.spans()
        if len(x) > _FEW or x.device.type != "cpu" or len(spans) == 1:
            for span in spans:
                work(span)
        else:
            with one_torch_thread():
                run_tasks(work, spans)
        return out


def tiles_of(
    compressed: MethodCode, plugins: Plugins, params: Mapping[str, Tensor]
) -> Tiles | None:
    """The rows of a coded matrix; None where its method decodes the whole matrix only."""
    return Tiles(compressed, plugins, params) if row_step(compressed, plugins) else None
