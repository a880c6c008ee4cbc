"""What the methods of this package make of second-order statistics."""

import torch
from torch import Tensor

from vqzoo.numerics.feedback.blocks import Choose
from vqzoo.numerics.feedback.layer import Feedback, even_weights, times_hessian
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


def targets(feedback: Feedback, weight: Tensor, choose: Choose) -> Tensor:
    """(m, n): what each block had become when its values were chosen.

    A codebook that is trained on them knows where errors drive the weights.
    """
    seen = torch.empty_like(weight)

    def choose_and_keep(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        seen[:, columns] = block
        return choose(columns, block, metric)

    feedback.quantize(weight, choose_and_keep)
    return seen


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
