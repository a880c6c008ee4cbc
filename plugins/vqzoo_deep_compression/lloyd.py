"""Lloyd's iterations on numbers, from a given start."""

import torch
from torch import Tensor


def scalar_lloyd(values: Tensor, start: Tensor, *, iterations: int = 100) -> Tensor:
    """Improve centroids until no value changes its cluster.

    A centroid that no value is nearest to stays where it is.

    Args:
        values: any shape, float32, finite, at least one.
        start: (k,), float32: the first centroids.
        iterations: at most.

    Returns:
        (k,) centroids, float32, ascending.
    """
    ordered = values.reshape(-1).double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    centroids = start.double().sort().values
    previous: Tensor | None = None
    for _ in range(iterations):
        middle = (centroids[1:] + centroids[:-1]) / 2
        cuts = torch.searchsorted(ordered, middle, right=True)
        cuts = torch.cat([cuts.new_zeros(1), cuts, cuts.new_tensor([len(ordered)])])
        if previous is not None and torch.equal(cuts, previous):
            break
        previous = cuts
        counts = cuts.diff()
        means = sums[cuts].diff() / counts.clamp(min=1)
        centroids = means.where(counts > 0, centroids).sort().values
    return centroids.float()
