"""Second-order statistics of a layer, as methods see them."""

from dataclasses import dataclass

import torch
from torch import Tensor

_SENSITIVITY = 100.0  # squared logits that the loss of all weights of a layer is taken to cost
_BLOCK = 64  # columns of a block of an assumed H


@dataclass(frozen=True)
class SecondOrder:
    """Second-order statistics of one layer of a dense network on calibration images.

    A layer multiplies input vectors x by its (m, n) matrix; an error E of the matrix, with rows
    e_i, changes the centred logits by about ½ Σ_i g_i e_i H e_iᵀ squared logits an image (K-FAC
    with a diagonal output factor, Martens and Grosse 2015, arXiv 1503.05671).

    Attributes:
        hessian: H = E[x xᵀ] as blocks of consecutive columns: (groups, b, b) float32 each, b
            adding up to n. One block of all n columns unless that would take too much memory;
            products of inputs in different blocks are then left out. The first m / groups rows of
            the matrix belong to the first group.
        row_weights: g, (m,) float32: the mean over images of the squared gradients of randomly
            weighted logits with respect to the layer's outputs, summed over positions.
    """

    hessian: tuple[Tensor, ...]
    row_weights: Tensor

    def to(self, device: torch.device) -> "SecondOrder":
        """The same on a device."""
        blocks = tuple(block.to(device) for block in self.hessian)
        return SecondOrder(blocks, self.row_weights.to(device))


def assumed_row_weight(weight: Tensor) -> float:
    """g of every row where no images say what errors do, with H = I: losing all weights of a layer
    is then taken to cost ½ g ‖W‖² = 100 squared logits, whatever the layer.

    Args:
        weight: (m, n).
    """
    energy = float(weight.double().square().sum())
    return 2 * _SENSITIVITY / energy if energy else 1.0


def known_or_assumed(weight: Tensor, known: SecondOrder | None) -> SecondOrder:
    """What errors of a layer are taken to cost.

    Args:
        weight: the layer's matrix, (m, n).
        known: what calibration images say; None without any.

    Returns:
        Those statistics. Where no error changes the answers to the images, all rows count alike,
        and without images all weights do, as `assumed_row_weight` says.
    """
    m, n = weight.shape
    if known is not None and float(known.row_weights.double().mean()) > 0:
        return known
    rows = torch.full((m,), assumed_row_weight(weight), device=weight.device)
    if known is not None:
        return SecondOrder(known.hessian, rows)
    widths = [min(_BLOCK, n - start) for start in range(0, n, _BLOCK)]
    alike = {width: torch.eye(width, device=weight.device)[None] for width in set(widths)}
    return SecondOrder(tuple(alike[width] for width in widths), rows)
