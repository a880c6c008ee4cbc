"""Histograms and codes of numbers on an accelerator."""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Doubles, as_float32, code_dtype
from vqzoo.numerics.clustering.scalar.histogram import BINS, TAIL, Bins, core_of

VALUES = 1 << 21  # counted at once, with about 150 MiB of indices and doubles


def bins_on_device(values: Tensor, weights: Tensor | None) -> Bins:
    """`histogram.bins_of` for more than 65,536 finite values (n,), on a device with float64.

    The sums are of integers, the position of each value in its bin in units of the bin's width over
    2^u, where u is what the sum of n of them leaves of 62 bits. They are the same in any order.

    Raises:
        ValueError: a value is not finite.
    """
    n, device = len(values), values.device
    least, largest = float(values.amin()), float(values.amax())
    if not np.isfinite([least, largest]).all():
        raise ValueError("values must be finite")
    low, high = core_of(np.sort(as_float32(values[:: n // BINS])))
    edges = bin_edges(low, high)
    edges[0], edges[-1] = min(edges[0], least), max(edges[-1], largest)
    widths = np.diff(edges)
    inner, starts, inverse = (
        torch.from_numpy(part).to(device) for part in (edges[1:-1], edges[:-1], 1.0 / widths)
    )
    units = 2.0 ** (61 - n.bit_length())
    heaviest = 1.0 if weights is None else float(weights.amax())
    masses = torch.zeros(BINS, dtype=torch.int64, device=device)
    places = torch.zeros(BINS, dtype=torch.int64, device=device)
    for start in range(0, n, VALUES):
        part = values[start : start + VALUES].double()
        bins = torch.bucketize(part, inner, right=True)
        mass = torch.full_like(part, units)
        if weights is not None:
            mass *= weights[start : start + VALUES].double() / heaviest
        place = (part - starts[bins]) * inverse[bins]
        masses.scatter_add_(0, bins, mass.long())
        places.scatter_add_(0, bins, (place * mass).long())
    mass_sums = masses.cpu().numpy() * (heaviest / units)
    place_sums = places.cpu().numpy() * (heaviest / units)
    origin = (low + high) / 2
    used = mass_sums > 0
    moments = mass_sums * (edges[:-1] - origin) + place_sums * widths
    return Bins(mass_sums[used], moments[used], origin)


def bin_edges(low: float, high: float) -> Doubles:
    """(65,537,) ascending: bins of equal width over the core low to high, 128 an octave outside."""
    core = np.linspace(low, high, BINS - 2 * TAIL + 1)
    tail = (high - low) * (2.0 ** (np.arange(1, TAIL + 1) / 128.0) - 1.0)
    return np.concatenate([low - tail[::-1], core, high + tail])


def codes_on_device(values: Tensor, limits: Tensor) -> Tensor:
    """For each value, the number of the first of the ascending limits (k,) that is not below it."""
    k = len(limits)
    flat = values.reshape(-1)
    codes = torch.empty(len(flat), dtype=code_dtype(k), device=values.device)
    limits = limits.to(values.device)
    for start in range(0, len(flat), VALUES):
        part = flat[start : start + VALUES].float()
        first = torch.bucketize(part, limits, out_int32=True)
        codes[start : start + VALUES] = first.clamp(max=k - 1).to(codes.dtype)
    return codes.view(values.shape)
