"""The loss that second-order statistics predict for a compressed layer."""

from torch import Tensor

from vqzoo.numerics.feedback.layer import feedback_loss
from vqzoo.plugin.second_order import SecondOrder, known_or_assumed


def predicted_loss(weight: Tensor, decoded: Tensor, known: SecondOrder | None) -> float:
    """½ Σ_i g_i e_i H e_iᵀ of the error E = W − Ŵ, in squared logits; see `SecondOrder`.

    Args:
        weight: W, (m, n) float32.
        decoded: Ŵ, on the same device.
        known: H and g; without them the loss is what `known_or_assumed` takes errors to cost.
    """
    metric = known_or_assumed(weight, None if known is None else known.to(weight.device))
    return feedback_loss(weight - decoded, metric.hessian, metric.row_weights) / 2
