"""The shared values of Deep Compression: scalar k-means from the paper's initializations."""

from typing import Literal

import torch
from torch import Tensor

from vqzoo.numerics.clustering.scalar_kmeans import scalar_centroids

Init = Literal["linear", "density", "random", "optimal"]


def shared_values(values: Tensor, k: int, init: Init, seed: int) -> Tensor:
    """Cluster values into k shared ones.

    Args:
        values: (n,), float32, finite.
        k: 1 to n.
        init: the initialization of Lloyd's iterations (Han, Mao, Dally 2016, section 3.2): evenly
            over the range, evenly over the distribution, or random values. "optimal" is the
            optimum of k-means, without iterations.
        seed: seed of the random initialization.

    Returns:
        (k,), float32, ascending.
    """
    if init == "optimal":
        return scalar_centroids(values, k)
    return scalar_lloyd(values, initial_centroids(values, k, init, seed))


def initial_centroids(
    values: Tensor, k: int, init: Literal["linear", "density", "random"], seed: int
) -> Tensor:
    """The centroids (k,) that Lloyd's iterations start from; see `shared_values`."""
    if init == "linear":
        return torch.linspace(float(values.min()), float(values.max()), k)
    if init == "density":
        quantiles = (torch.arange(k, dtype=torch.float64) + 0.5) / k
        return values.sort().values[(quantiles * len(values)).long()]
    generator = torch.Generator().manual_seed(seed)
    return values[torch.randperm(len(values), generator=generator)[:k]]


def scalar_lloyd(values: Tensor, start: Tensor, *, iterations: int = 100) -> Tensor:
    """Run Lloyd's iterations until no value changes its cluster.

    The centroid of an empty cluster stays.

    Args:
        values: any shape, float32, finite, at least one.
        start: (k,), float32: the initial centroids.
        iterations: maximum of iterations.

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
