"""From the best cuts between bins to the best cuts between values, near them.

A coarse optimum says where to look: each cut may move to between any two values of the bins next to
it, all cuts together by dynamic programming. Where a cut ends at the border of its window, windows
are laid around the new cuts, and then wider ones, until none does.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Floats
from vqzoo.numerics.histogram import Bins, Doubles, Grid, running, values_in

Positions = NDArray[np.int64]

_WIDTH = 2  # bins on each side of a cut


def cuts_between_values(
    values: Floats, weights: Floats | None, bins: Bins, grid: Grid, cuts: Positions
) -> tuple[Doubles, Doubles]:
    """Masses and moments (k,) of the runs between the best cuts of values near those of bins.

    cuts: (k + 1,), k > 1, as `optimal_cuts` gives them for `bins`.
    """
    count = len(bins.mass)
    width = _WIDTH
    while True:
        low = np.maximum(cuts[1:-1] - width, 0)
        high = np.minimum(cuts[1:-1] + width, count)
        near = np.zeros(count, bool)
        for first, last in zip(low, high, strict=True):
            near[first:last] = True
        places, mass, moment = _items(values, weights, bins, grid, near)
        mass, moment = running(mass), running(moment)
        first_item = np.searchsorted(places, low)
        last_item = np.searchsorted(places, high)
        found = _best_cuts(mass, moment, first_item, last_item)
        # Bins on whose far side a cut would rather be; the ends of all are no borders.
        stuck = ((found == first_item) & (low > 0)) | ((found == last_item) & (high < count))
        if not stuck.any():
            ends = np.concatenate([[0], found, [len(mass) - 1]])
            return np.diff(mass[ends]), np.diff(moment[ends])
        cuts = np.concatenate([[0], np.append(places, count)[found], [count]])
        width += _WIDTH


def _items(
    values: Floats,
    weights: Floats | None,
    bins: Bins,
    grid: Grid,
    near: NDArray[np.bool_],
) -> tuple[Positions, Doubles, Doubles]:
    """Bins, those that are `near` as their distinct values: (places among bins, mass, moment)."""
    found, mass = values_in(values, weights, grid, near)
    if weights is None:
        found.sort()
    else:
        order = np.argsort(found, kind="stable")
        found, mass = found[order], mass[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(found) > 0]))
    exact = found.astype(np.float64) - bins.origin
    fine_mass = np.add.reduceat(mass, starts)
    fine_moment = np.add.reduceat(mass * exact, starts)
    fine_places = grid.places_of(found[starts])
    whole = np.flatnonzero(~near)
    before = np.searchsorted(fine_places, whole)
    places = np.insert(fine_places, before, whole)
    mass = np.insert(fine_mass, before, bins.mass[whole])
    moment = np.insert(fine_moment, before, bins.moment[whole])
    used = mass > 0
    return places[used], mass[used], moment[used]


@njit(nogil=True, cache=True)
def _last_run(mass, moment, costs, low, i, j):  # type: ignore[no-untyped-def]
    """Of items 0 to j - 1, the last run starting at i; costs: of what is before i, from `low`."""
    if i >= j:
        return np.inf
    m = mass[j] - mass[i]
    s = moment[j] - moment[i]
    if m <= 0.0:  # lost in the sum
        return np.inf
    return costs[i - low] - s * s / m


@njit(nogil=True, cache=True)
def _best_cuts(mass, moment, low, high):  # type: ignore[no-untyped-def]
    """The best ascending cuts, the q-th one from low[q] to high[q].

    mass, moment: (n + 1) float64, running sums. The start of a last run only moves up as its end
    does, so that the ends in between two have their starts in between.
    """
    layers = low.shape[0]
    offsets = np.zeros(layers + 2, np.int64)
    for q in range(layers):
        offsets[q + 1] = offsets[q] + high[q] - low[q] + 1
    starts = np.zeros(offsets[layers], np.int64)
    costs = np.zeros(1, np.float64)
    first, last = 0, 0
    for q in range(layers):
        size = high[q] - low[q] + 1
        new_costs = np.empty(size, np.float64)
        own = starts[offsets[q] : offsets[q + 1]]
        step = 1
        while step < size:
            step *= 2
        while step > 0:
            # Those at odd multiples of a step, between their neighbours' at even ones.
            for place in range(step - 1, size, 2 * step):
                begin = own[place - step] if place >= step else first
                end = own[place + step] if place + step < size else last
                best, chosen = np.inf, begin
                for i in range(begin, end + 1):
                    cost = _last_run(mass, moment, costs, first, i, low[q] + place)
                    if cost < best:
                        best, chosen = cost, i
                new_costs[place] = best
                own[place] = chosen
            step //= 2
        costs, first, last = new_costs, low[q], high[q]
    cuts = np.empty(layers, np.int64)
    end = mass.shape[0] - 1
    best = np.inf
    for i in range(first, last + 1):
        cost = _last_run(mass, moment, costs, first, i, end)
        if cost < best:
            best, end_of_rest = cost, i
    for q in range(layers - 1, -1, -1):
        cuts[q] = end_of_rest
        end_of_rest = starts[offsets[q] + end_of_rest - low[q]]
    return cuts
