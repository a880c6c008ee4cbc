"""Tensors that stay dense, stored in float16 where that keeps their values."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vqzoo.artifact.schema import Rest

_SMALLEST = 2.0**-14  # the smallest float16 with all of its eleven bits
_LARGEST = 65504.0


def fits_float16(tensor: Tensor) -> bool:
    """Whether float16 keeps a float32 tensor's values to within 2^-11 of the largest."""
    if tensor.dtype != torch.float32:
        return False
    largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    return largest == 0 or _SMALLEST <= largest <= _LARGEST


def stored_rest(tensors: Mapping[str, Tensor], rest: Rest) -> dict[str, Tensor]:
    """The tensors as a file holds them.

    Args:
        tensors: state dict key -> tensor that stays dense.
        rest: "float16" converts the float32 tensors that `fits_float16` takes; readers convert
            them back.
    """
    if rest == "float32":
        return dict(tensors)
    return {key: t.half() if fits_float16(t) else t for key, t in tensors.items()}
