"""Second-order statistics of a layer, as methods see them."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
