"""Views of a few images, so that a network meets inputs that the images alone do not give."""

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST = 0.6  # share of an image's area that a view shows
_STRETCH = 0.15  # largest change of the aspect ratio, of logarithms
_MIXED = 0.5  # share of the views that are mixtures of two
_WEAKEST = 0.3  # weight of the weaker image of a mixture, at least


def random_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """A view of each image: cropped, resized to the same size and mirrored; half of them mixed.

    Mixtures (Zhang et al. 2018, arXiv 1710.09412) excite what no image of the few classes that
    are there excites; a teacher answers to them as to any input.

    Args:
        images: (B, C, H, W), preprocessed floats.
        generator: on the CPU.

    Returns:
        (B, C, H, W), new, on the images' device.
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(_SMALLEST, 1).sqrt()
    stretch = uniform(-_STRETCH, _STRETCH).exp()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    rows = [
        torch.stack([width * mirror, zero, uniform(-1, 1) * (1 - width)], 1),
        torch.stack([zero, height, uniform(-1, 1) * (1 - height)], 1),
    ]
    transforms = torch.stack(rows, 1).to(images)
    grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    share = torch.where(uniform(0, 1) < _MIXED, uniform(_WEAKEST, 1 - _WEAKEST), 1.0)
    partners = views[torch.randperm(count, generator=generator).to(views.device)]
    return torch.lerp(partners, views, share.to(views)[:, None, None, None])
