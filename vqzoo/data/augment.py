"""Random shifts and mirroring of small images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, padding: int, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image by up to `padding` pixels and mirror it with probability 1/2.

    Args:
        images: (N, C, H, W), any dtype and device.
        padding: the largest shift in either direction; zeros fill the border.
        generator: where shifts and mirroring are drawn from; torch's global generator unless given.

    Returns:
        A new tensor of the same shape and dtype.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    device = images.device
    shift = torch.randint(0, 2 * padding + 1, (2, n, 1), device=device, generator=generator)
    mirror = torch.rand(n, 1, device=device, generator=generator) < 0.5
    rows = torch.arange(height, device=device) + shift[0]
    columns = torch.arange(width, device=device).expand(n, -1)
    columns = torch.where(mirror, columns.flip(1), columns) + shift[1]
    image = torch.arange(n, device=device)[:, None, None]
    shifted = padded[image, :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)
