"""Numbers on an accelerator: counted into bins there, and given their codes there."""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import as_float32, code_dtype
from vqzoo.numerics.clustering.scalar.histogram import BINS, TAIL, Bins, Doubles, core_of

_VALUES = 1 << 21  # at a time: some 150 MiB of indices and doubles


def bins_elsewhere(values: Tensor, weights: Tensor | None) -> Bins:
    """`histogram.bins_of` for finite values (n,), more than 65,536 of them, on a device that has
    doubles.

    Sums are of integers: where in its bin a value lies, in units of the bin's width over 2^u, u
    being what n of them leave of 62 bits. They are the same in whatever order they are added up.

    Raises ValueError where a value is not finite.
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
    for start in range(0, n, _VALUES):
        part = values[start : start + _VALUES].double()
        bins = torch.bucketize(part, inner, right=True)
        mass = torch.full_like(part, units)
        if weights is not None:
            mass *= weights[start : start + _VALUES].double() / heaviest
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
    """(65,537,) ascending: equal bins over the core low to high, 128 an octave beyond it."""
    core = np.linspace(low, high, BINS - 2 * TAIL + 1)
    tail = (high - low) * (2.0 ** (np.arange(1, TAIL + 1) / 128.0) - 1.0)
    return np.concatenate([low - tail[::-1], core, high + tail])


def codes_elsewhere(values: Tensor, limits: Tensor) -> Tensor:
    """For each value the first of the limits (k,), ascending, that is not below it."""
    k = len(limits)
    flat = values.reshape(-1)
    codes = torch.empty(len(flat), dtype=code_dtype(k), device=values.device)
    limits = limits.to(values.device)
    for start in range(0, len(flat), _VALUES):
        part = flat[start : start + _VALUES].float()
        found = torch.bucketize(part, limits, out_int32=True)
        codes[start : start + _VALUES] = found.clamp(max=k - 1).to(codes.dtype)
    return codes.view(values.shape)
