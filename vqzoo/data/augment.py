"""Random shifts and mirror images of small pictures."""

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, padding: int, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image by up to `padding` pixels (zeros come in) and mirror every other at random.

    Takes and gives (N, C, H, W), any dtype. Draws from `generator`, else from torch's global ones.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    where = images.device
    shift = torch.randint(0, 2 * padding + 1, (2, n, 1), device=where, generator=generator)
    mirror = torch.rand(n, 1, device=where, generator=generator) < 0.5
    rows = torch.arange(height, device=where) + shift[0]
    columns = torch.arange(width, device=where).expand(n, -1)
    columns = torch.where(mirror, columns.flip(1), columns) + shift[1]
    image = torch.arange(n, device=where)[:, None, None]
    picked = padded[image, :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
