"""Points on an accelerator with their offset and scale, which kernels apply as they read."""

from dataclasses import dataclass

import torch
from torch import Tensor

_EXPONENT = 126.0  # float32 holds powers of two up to this exponent, and their inverses


@dataclass(frozen=True)
class ScaledPoints:
    """The points (values - offset)·scale, whose coordinates lie within ±4."""

    values: Tensor
    """(batch, d, n), float32, float16 or bfloat16, with any strides."""
    offset: Tensor
    """(batch, d), float32."""
    scale: Tensor
    """(batch,), float32, powers of two, so that products with them are exact."""

    def at(self, problems: slice, points: slice) -> Tensor:
        """Some of the points as a tensor (problems, d, points), float32."""
        part = self.values[problems, :, points].float()
        return (part - self.offset[problems, :, None]) * self.scale[problems, None, None]

    def pick(self, places: Tensor) -> Tensor:
        """The points at `places` (batch, m), int64, as centroids (batch, m, d)."""
        index = places[:, None].expand(-1, self.values.shape[1], -1)
        moved = self.values.gather(2, index).float() - self.offset[:, :, None]
        return (moved * self.scale[:, None, None]).transpose(1, 2).contiguous()

    def restore(self, centroids: Tensor) -> Tensor:
        """Centroids (batch, k, d) in the coordinates of the values."""
        return centroids / self.scale[:, None, None] + self.offset[:, None]


def center_points(values: Tensor) -> ScaledPoints:
    """Points (batch, d, n) relative to their mean. Raises ValueError if one is not finite."""
    low, high = values.amin(2), values.amax(2)
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise ValueError("points must be finite")
    offset = values.mean(2, dtype=torch.float32)
    return ScaledPoints(values, offset, _scale(torch.maximum(high - offset, offset - low)))


def around_zero(values: Tensor) -> ScaledPoints:
    """Points (batch, d, n) that are only scaled, so that their sums are scaled sums of values."""
    offset = torch.zeros(values.shape[:2], device=values.device)
    return ScaledPoints(values, offset, _scale(values.abs().amax(2)))


def center_on(values: Tensor, centroids: Tensor) -> ScaledPoints:
    """Points (batch, d, n) relative to the mean of centroids (batch, k, d)."""
    offset = centroids.mean(1)
    far = torch.maximum(centroids.amax(1) - offset, offset - centroids.amin(1))
    return ScaledPoints(values, offset, _scale(far))


def _scale(far: Tensor) -> Tensor:
    """(batch,): powers of two that scale distances (batch, d) to about 1 at most."""
    largest = far.amax(1).clamp(min=2.0**-_EXPONENT)
    return torch.exp2(-torch.log2(largest).ceil().clamp(-_EXPONENT, _EXPONENT))
