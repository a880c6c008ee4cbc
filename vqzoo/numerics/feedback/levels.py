"""Error feedback onto a few levels that all weights of a layer share, each row times a step."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import as_float32
from vqzoo.numerics.feedback.blocks import LAZY
from vqzoo.numerics.feedback.elimination import Elimination
from vqzoo.numerics.feedback.layer import Feedback
from vqzoo.numerics.kernels.feedback.levels import feed_back_some
from vqzoo.numerics.threads import run_tasks

_ROWS = 64  # a task


@dataclass(frozen=True)
class Levels:
    """The values that weights can take.

    Attributes:
        values: (k,) float32, ascending.
        steps: (m, s) float32, >= 0: a weight is a level times a step of its row.
        step_of: (n,) int64: which of the s steps is each column's; None for the only one.
        kept: (m, n) bool: the weights that may differ from 0; None for all.
    """

    values: Tensor
    steps: Tensor
    step_of: Tensor | None = None
    kept: Tensor | None = None

    def columns(self, columns: Tensor) -> "Levels":
        """The same for some of the columns."""
        kept = None if self.kept is None else self.kept[:, columns]
        step_of = None if self.step_of is None else self.step_of[columns]
        return Levels(self.values, self.steps, step_of, kept)

    def of(self, codes: Tensor) -> Tensor:
        """The weights (m, n) that codes (m, n) stand for."""
        values = self.values[codes.long()] * self._spread()
        return values if self.kept is None else values.where(self.kept, 0.0)

    def nearest(self, matrix: Tensor) -> Tensor:
        """The codes (m, n) int32 of the nearest weights."""
        steps = self._spread()
        limits = (self.values[1:] + self.values[:-1]) / 2
        scaled = (matrix / steps).where(steps > 0, 0.0)
        return torch.searchsorted(limits, scaled.contiguous(), out_int32=True)

    def _spread(self) -> Tensor:
        return self.steps if self.step_of is None else self.steps[:, self.step_of]


@dataclass(frozen=True)
class Chosen:
    """Codes, and what they were chosen for.

    Attributes:
        codes: (m, n) int32; 0 where a weight is not kept.
        targets: (m, n) float32: what each weight had become when its code was chosen.
    """

    codes: Tensor
    targets: Tensor


def feed_back_levels(matrix: Tensor, feedback: Feedback, levels: Levels) -> Chosen:
    """Quantize a matrix column by column to the nearest levels, each error fed back.

    Runs in parallel kernels on the CPU, in plain torch on the matrix's device elsewhere.

    Args:
        matrix: (m, n) float32.
        feedback: of the layer, with width 1.
        levels: what weights can be.
    """
    codes = torch.zeros(matrix.shape, dtype=torch.int32, device=matrix.device)
    targets = torch.empty_like(matrix)
    if matrix.device.type != "cpu":

        def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
            some = levels.columns(columns)
            codes[:, columns] = some.nearest(block)
            targets[:, columns] = block
            return some.of(codes[:, columns])

        feedback.quantize(matrix, choose)
    else:
        for start, one in zip(feedback.starts, feedback.eliminations, strict=True):
            columns = one.order + start
            chosen = _on_cpu(matrix[:, columns], one, levels.columns(columns))
            codes[:, columns], targets[:, columns] = chosen.codes, chosen.targets
    if levels.kept is not None:
        codes = codes.where(levels.kept, 0)
    return Chosen(codes, targets)


def _on_cpu(rest: Tensor, one: Elimination, levels: Levels) -> Chosen:
    """The choice for a matrix (m, n) whose columns, like those of the levels, come in order.

    It turns into the targets on the way.
    """
    (m, n), groups = rest.shape, len(one.factor)
    codes = torch.zeros((m, n), dtype=torch.int32)
    step_of = torch.zeros(n, dtype=torch.int32)
    if levels.step_of is not None:
        step_of = levels.step_of.int()
    by_group = rest.view(groups, -1, n)
    for first in range(0, n, LAZY):
        part = slice(first, min(first + LAZY, n))
        some = Levels(
            levels.values,
            levels.steps,
            step_of[part],
            None if levels.kept is None else levels.kept[:, part],
        )
        factors = one.factor[:, part, part].contiguous()
        block = rest[:, part].contiguous()
        codes[:, part], errors = _quantize_some(block, factors, some)
        rest[:, part] = block
        behind = slice(part.stop, n)
        by_group[:, :, behind] -= errors.view(groups, m // groups, -1) @ one.factor[:, part, behind]
    return Chosen(codes, rest)


def _quantize_some(block: Tensor, factors: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Codes and errors divided by U_jj of a few columns, (m, w); the block becomes targets."""
    m, w = block.shape
    codes, errors = np.zeros((m, w), np.int32), np.empty((m, w), np.float32)
    groups = np.arange(m, dtype=np.int32) // (m // len(factors))
    values, steps = as_float32(levels.values), as_float32(levels.steps)
    limits = (values[1:] + values[:-1]) / 2
    kept = np.ones((m, 0), np.bool_) if levels.kept is None else levels.kept.numpy()
    assert levels.step_of is not None
    step_of, rows, all_factors = levels.step_of.numpy(), block.numpy(), factors.numpy()

    def work(part: slice) -> None:
        feed_back_some(
            rows[part], all_factors, groups[part], values, limits, steps[part], step_of,
            kept[part], codes[part], errors[part],
        )  # fmt: skip

    run_tasks(work, [slice(at, min(at + _ROWS, m)) for at in range(0, m, _ROWS)])
    return torch.from_numpy(codes), torch.from_numpy(errors)
