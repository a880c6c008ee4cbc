"""k-means++ on an accelerator, in rounds that draw many centroids at once."""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import Kernels
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints

_DRAW_BITS = 31
_FAR = 1e30  # more than any squared distance of scaled points


def stratified_draws(seed: int, first: int, batch: int, k: int) -> list[Tensor]:
    """The random numbers of each round of `draw_centroids`, (batch, m) int64 below 2^31, ascending.

    One number is drawn from each of m equal parts of the range. The numbers of a problem depend
    only on the seed and on its position in the whole batch, of which these are `first` on.
    """
    stream = np.random.PCG64(seed % (1 << 64)).advance(first * k)
    numbers = np.random.Generator(stream).random((batch, k))
    rounds = []
    done = 0
    while done < k:
        m = min(max(1, done // 4), k - done)
        places = (numbers[:, done : done + m] + np.arange(m)) / m
        rounds.append(torch.from_numpy((places * (1 << _DRAW_BITS)).astype(np.int64)))
        done += m
    return rounds


def draw_centroids(
    x: ScaledPoints, k: int, mass: Tensor | None, draws: list[Tensor], kernels: Kernels
) -> Tensor:
    """k-means++ in rounds, each of which adds a quarter to the number of centroids.

    k-means|| (Bahmani et al. 2012) shows that k-means++ tolerates drawing many points at once by
    mass times squared distance; here no more points are drawn than there are centroids to find, so
    that nothing remains to be reclustered. The draws of a round are stratified, and shares are
    summed as integers, whose sum is the same in any order.

    Args:
        x: points (batch, d, n).
        k: number of centroids.
        mass: (batch, n), float32; None for 1 everywhere.
        draws: those of `stratified_draws`.
        kernels: the device's kernels.

    Returns:
        (batch, k, d), float32, centred and scaled like the points.
    """
    batch, _, n = x.values.shape
    device = x.offset.device
    costs = torch.full((batch, n), _FAR, device=device)
    centroids = torch.empty((batch, 0, x.values.shape[1]), device=device)
    units = 2.0 ** (60 - n.bit_length())
    for round_, drawn in enumerate(draws):
        if round_ > 0:
            new = centroids[:, -draws[round_ - 1].shape[1] :]
            costs = torch.minimum(costs, kernels.nearest(x, new.contiguous(), True)[1])
        shares = costs if mass is None else costs * mass
        peaks = shares.amax(1, keepdim=True).clamp(min=1e-38)
        running = (shares / peaks * units).to(torch.int64).cumsum(1)
        targets = fraction_of(running[:, -1:], drawn.to(device))
        places = torch.searchsorted(running, targets, right=True).clamp(max=n - 1)
        centroids = torch.cat([centroids, x.pick(places)], 1)
    return centroids


def fraction_of(total: Tensor, drawn: Tensor) -> Tensor:
    """⌊total · drawn / 2^31⌋ of int64 below 2^61 and 2^31, whose product would overflow."""
    low = total & ((1 << _DRAW_BITS) - 1)
    return (total >> _DRAW_BITS) * drawn + (low * drawn >> _DRAW_BITS)
