"""Error feedback over a whole layer: H factored part by part, errors fed back and measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vqzoo.numerics.feedback.blocks import Choose, feed_back_blocks
from vqzoo.numerics.feedback.elimination import Elimination, eliminate

DAMPING = 0.1  # of the mean diagonal: H of a few hundred images is noisy, and feedback follows it
ROW_FLOOR = 0.3  # of the mean row weight, added to each
_SILENT = 1e-3  # of the mean diagonal, for groups that saw no input


@dataclass(frozen=True)
class Feedback:
    """The elimination of a layer's columns in parts between which no error is fed back.

    Attributes:
        width: columns quantized together; parts begin at multiples of it.
        starts: where each part begins.
        eliminations: one a part, their columns counted from its start.
    """

    width: int
    starts: tuple[int, ...]
    eliminations: tuple[Elimination, ...]

    def column_metric(self) -> Tensor:
        """D, (groups, n) float64 in the layer's own order: what a column's squared error costs once
        the columns behind it have made up for it."""
        return torch.cat([one.metric[:, one.place] for one in self.eliminations], 1)

    def block_metrics(self) -> list[Tensor]:
        """D_b of the whole blocks, (blocks, groups, d, d) float64 in the layer's own order, and of
        a shorter last block, (1, groups, tail, tail)."""
        whole: list[Tensor] = []
        tail: list[Tensor] = []
        for one in self.eliminations:
            n = len(one.order)
            blocks = n // self.width
            metrics = [one.block_metric(at, at + self.width) for at in range(0, n, self.width)]
            if blocks:
                places = (one.order[: blocks * self.width : self.width] // self.width).argsort()
                whole.append(torch.stack(metrics[:blocks])[places])
            if n % self.width:
                tail = [metrics[-1][None]]
        return ([torch.cat(whole)] if whole else []) + tail

    def quantize(self, matrix: Tensor, choose: Choose) -> Tensor:
        """`feed_back_blocks` in each part; `choose` is given the layer's columns.

        Args:
            matrix: (m, n) float32.
            choose: see `feed_back_blocks`.

        Returns:
            (m, n) float32: the values chosen.
        """
        values = torch.empty_like(matrix)
        for start, one in zip(self.starts, self.eliminations, strict=True):

            def choose_here(
                columns: Tensor, block: Tensor, metric: Tensor, start: int = start
            ) -> Tensor:
                return choose(columns + start, block, metric)

            part = slice(start, start + len(one.order))
            values[:, part] = feed_back_blocks(matrix[:, part], one, self.width, choose_here)
        return values


def feedback_of(hessian: Sequence[Tensor], width: int = 1, damping: float = DAMPING) -> Feedback:
    """Factor a layer's Hessian.

    A part holds the columns of one block of H. Where `width` does not divide them, the columns at
    the border join the part before, with the products that are known.

    Args:
        hessian: H as blocks of consecutive columns, (groups, b, b) each.
        width: columns quantized together.
        damping: see `eliminate`.
    """
    n = sum(block.shape[1] for block in hessian)
    borders = [0]
    stop = 0
    for block in hessian:
        stop += block.shape[1]
        border = min(n, -(-stop // width) * width)
        if border > borders[-1]:
            borders.append(border)
    seen = _with_silent_groups(hessian)
    eliminations = tuple(
        eliminate(_between(seen, start, stop), damping, width) for start, stop in pairwise(borders)
    )
    return Feedback(width, tuple(borders[:-1]), eliminations)


def times_hessian(matrix: Tensor, hessian: Sequence[Tensor]) -> Tensor:
    """M H, (m, n) float32; the first m / groups rows are multiplied by the first group's H."""
    products: list[Tensor] = []
    start = 0
    for block in hessian:
        stop = start + block.shape[1]
        by_group = matrix[:, start:stop].unflatten(0, (len(block), -1))
        products.append((by_group @ block).flatten(0, 1))
        start = stop
    return torch.cat(products, 1) if len(products) > 1 else products[0]


def feedback_loss(error: Tensor, hessian: Sequence[Tensor], row_weights: Tensor) -> float:
    """Σ_i g_i e_i H e_iᵀ of an error E (m, n) with row weights g (m,)."""
    rows = (times_hessian(error, hessian) * error).sum(1, dtype=torch.float64)
    return float((rows * row_weights).sum())


def even_weights(row_weights: Tensor) -> Tensor:
    """Row weights kept from extremes: g + 0.3·mean(g), divided by their mean; (m,) float32."""
    floored = row_weights + ROW_FLOOR * row_weights.mean()
    return floored / floored.mean()


def _with_silent_groups(hessian: Sequence[Tensor]) -> Sequence[Tensor]:
    """H with a little of the identity for groups that saw no input, whose errors cost nothing: in
    the place of it, `eliminate` would give them the metric 1, whatever that is beside the others.
    """
    scale = sum(block.diagonal(dim1=1, dim2=2).sum(1) for block in hessian)
    assert isinstance(scale, Tensor)
    if bool((scale > 0).all()) or not bool((scale > 0).any()):
        return hessian
    n = sum(block.shape[1] for block in hessian)
    little = (_SILENT * scale.mean() / n * (scale == 0))[:, None, None]
    return [block + little * torch.eye(block.shape[1], device=block.device) for block in hessian]


def _between(hessian: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """The blocks of H over the columns from `start` to `stop`."""
    parts: list[Tensor] = []
    first = 0
    for block in hessian:
        last = first + block.shape[1]
        inside = slice(max(start, first) - first, min(stop, last) - first)
        if inside.start < inside.stop:
            parts.append(block[:, inside, inside])
        first = last
    return parts
