"""Codes that move to other centroids, where that lowers the loss of the network.

Malinovskii et al. 2024 (PV-tuning), arXiv 2405.14852, section 3.3: of all codes, the few whose
moves promise most move at once, along the gradient. Here the model of the loss is quadratic, with
the diagonal of the Gauss-Newton matrix: moving a weight by δ adds G δ + ½ h δ².
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moves:
    """The best move of each code.

    Attributes:
        codes: the codes as they are.
        moved: after the best move of each, of the same shape.
        gain: what each move alone promises to take off the loss, of the same shape; 0 or more.
    """

    codes: Tensor
    moved: Tensor
    gain: Tensor


def best_moves(codes: Tensor, books: Tensor, gradient: Tensor, curvature: Tensor) -> Moves:
    """The best move of each code of some blocks.

    Args:
        codes: (blocks, points), integers below k.
        books: (blocks or 1, k, d).
        gradient: (blocks, d, points): G of the values that centroids stand for.
        curvature: h of them, of the same shape.
    """
    moved, gain = torch.empty_like(codes), torch.empty(codes.shape, device=codes.device)
    for block, own in enumerate(codes):
        book = books[block % len(books)]
        here = own.long()
        bend = curvature[block].T
        slope = gradient[block].T - bend * book[here]
        costs = torch.addmm(slope @ book.T, bend, book.square().T, alpha=0.5)
        least, best = costs.min(1)
        gain[block] = (costs.gather(1, here[:, None])[:, 0] - least).clamp(min=0)
        moved[block] = best.to(codes.dtype)
    return Moves(codes, moved, gain)


def largest_moves(moves: Sequence[Moves], share: float) -> list[Tensor] | None:
    """The codes after the moves that promise most.

    Args:
        moves: of the parts of a layer.
        share: of all codes of the layer, that move at most.

    Returns:
        The codes of each part; None if no move promises anything.
    """
    gains = torch.cat([part.gain.flatten() for part in moves])
    count = math.ceil(share * len(gains))
    chosen = torch.zeros_like(gains, dtype=torch.bool)
    chosen[gains.topk(count).indices] = True
    chosen &= gains > 0
    if not chosen.any():
        return None
    masks = chosen.split([part.gain.numel() for part in moves])
    return [
        torch.where(mask.view(part.codes.shape), part.moved, part.codes)
        for part, mask in zip(moves, masks, strict=True)
    ]


def in_units_of(scale: Tensor | None, gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and curvature (m, n) of values that rows are multiplied by `scale`, (m,), of."""
    if scale is None:
        return gradient, curvature
    return gradient * scale[:, None], curvature * scale.square()[:, None]
