"""What the methods of this package make of second-order statistics."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqzoo.numerics.feedback.blocks import Choose
from vqzoo.numerics.feedback.layer import (
    Feedback,
    even_weights,
    feedback_loss,
    times_hessian,
)
from vqzoo.plugin import SecondOrder


def value_weights(feedback: Feedback, row_weights: Tensor, sizes: Tensor | None) -> Tensor:
    """(m, n) float32: what a squared error of each weight costs, of rows divided by `sizes`.

    Args:
        feedback: of the layer; errors cost what is left once later columns have made up for them.
        row_weights: (m,).
        sizes: (m, 1), by which the rows were divided.
    """
    rows = importance_of_rows(row_weights, sizes)
    columns = feedback.column_metric().float()
    columns = columns / columns.mean()
    groups = len(columns)
    return (rows.view(groups, -1, 1) * columns[:, None]).flatten(0, 1)


def quantize_twice(
    weight: Tensor,
    feedback: Feedback,
    second_order: SecondOrder,
    train: Callable[[Tensor], None],
    choose: Choose,
    results: Sequence[list[Tensor]],
) -> None:
    """Train codebooks on the weights and quantize; again on what errors have made of the weights.

    Codebooks of the second pass know where errors drive the weights. It is mostly better, and the
    better one counts.

    Args:
        weight: (m, n).
        feedback: of the layer.
        second_order: of the layer.
        train: trains the codebooks on a matrix (m, n).
        choose: see `feed_back_blocks`.
        results: codebooks and codes, which `train` and `choose` change; afterwards the better ones.
    """
    seen = torch.empty_like(weight)

    def choose_and_keep(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        seen[:, columns] = block
        return choose(columns, block, metric)

    train(weight)
    loss = loss_of(weight, feedback.quantize(weight, choose_and_keep), second_order)
    first = [[part.clone() for part in parts] for parts in results]
    train(seen)
    if loss < loss_of(weight, feedback.quantize(weight, choose), second_order):
        for parts, earlier in zip(results, first, strict=True):
            parts[:] = earlier


def loss_of(weight: Tensor, values: Tensor, second_order: SecondOrder) -> float:
    """What the errors of quantized values (m, n) cost, rows kept from extremes."""
    rows = even_weights(second_order.row_weights)
    return feedback_loss(weight - values, second_order.hessian, rows)


def importance_of_rows(row_weights: Tensor, sizes: Tensor | None) -> Tensor:
    """(m,): what a squared error costs in rows that were divided by `sizes`, (m, 1)."""
    rows = even_weights(row_weights)
    return rows if sizes is None else rows * (sizes[:, 0] / sizes.mean()).square()


def best_row_scales(weight: Tensor, normalized: Tensor, second_order: SecondOrder) -> Tensor:
    """(m,): the scales s_i that minimise (w_i - s_i q_i) H (w_i - s_i q_i)ᵀ for rows q_i of the
    decoded normalized matrix; 0 for rows that the inputs do not excite."""
    shared, energy = scale_sums(weight, normalized, second_order)
    return (shared / energy.where(energy > 0, 1.0)).float()


def scale_sums(
    weight: Tensor, normalized: Tensor, second_order: SecondOrder
) -> tuple[Tensor, Tensor]:
    """w_i H q_iᵀ and q_i H q_iᵀ of each row, (m,) float64; their quotient is its best scale."""
    product = times_hessian(normalized, second_order.hessian)
    shared = (weight * product).sum(1, dtype=torch.float64)
    return shared, (normalized * product).sum(1, dtype=torch.float64)
