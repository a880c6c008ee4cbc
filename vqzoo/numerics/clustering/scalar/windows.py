"""From the best cuts between bins to the best cuts between the values near them.

The optimum over bins says where to look: each cut may move to between any two values of the
neighbouring bins, all cuts jointly by dynamic programming. While a cut ends up at the border of its
window, this is repeated with windows around the new cuts, wider for those at a border.
"""

import numpy as np

from vqzoo.numerics.arrays import Doubles, Floats, Ints
from vqzoo.numerics.clustering.scalar.histogram import Bins, Grid, values_in
from vqzoo.numerics.clustering.scalar.intervals import run_cost, running_sums
from vqzoo.numerics.compiled import compiled

_WIDTH = 2  # bins on each side of a cut


def cuts_between_values(
    values: Floats, weights: Floats | None, bins: Bins, grid: Grid, cuts: Ints
) -> tuple[Doubles, Doubles]:
    """Masses and moments (k,) of the runs between the best cuts of values near cuts of bins.

    cuts: (k + 1,), k > 1: those of `optimal_cuts` for `bins`.
    """
    count = len(bins.mass)
    width = np.full(len(cuts) - 2, _WIDTH)
    while True:
        low = np.maximum(cuts[1:-1] - width, 0)
        high = np.minimum(cuts[1:-1] + width, count)
        near = np.zeros(count, bool)
        for first, last in zip(low, high, strict=True):
            near[first:last] = True
        near_values, near_weights = values_in(values, weights, grid, near)
        if weights is None:
            near_values.sort()
        else:
            order = np.argsort(near_values, kind="stable")
            near_values, near_weights = near_values[order], near_weights[order]
        starts, mass, moment = _items(
            near_values,
            near_weights,
            grid.places_of(near_values),
            near,
            bins.mass,
            bins.moment,
            bins.origin,
        )
        sums = running_sums(mass, moment)
        first_item, last_item = starts[low], starts[high]
        item_cuts = _best_cuts(sums, first_item, last_item)
        # Cuts at the border of their window; the ends of the whole range are not borders.
        stuck = ((item_cuts == first_item) & (low > 0)) | (
            (item_cuts == last_item) & (high < count)
        )
        if not stuck.any():
            ends = np.concatenate([[0], item_cuts, [len(mass)]])
            return np.diff(sums[ends, 0]), np.diff(sums[ends, 1])
        inner = np.searchsorted(starts, item_cuts, side="right") - 1  # the bins of the cuts
        cuts = np.concatenate([[0], inner, [count]])
        width[stuck] += _WIDTH


@compiled()
def _items(values, weights, places, near, bin_mass, bin_moment, origin):  # type: ignore[no-untyped-def]
    """The bins as items in ascending order, those that are `near` split into distinct values.

    values: (n,), ascending, of the near bins, with their weights (empty: all 1) and places (n,).

    Returns: starts (bins + 1,), where the items of each bin begin; the items' masses, all above 0,
    and their moments.
    """
    count = near.shape[0]
    starts = np.empty(count + 1, np.int64)
    mass = np.empty(values.shape[0] + count, np.float64)
    moment = np.empty(values.shape[0] + count, np.float64)
    weighted = weights.shape[0] > 0
    items, i = 0, 0
    for place in range(count):
        starts[place] = items
        if not near[place]:
            mass[items] = bin_mass[place]
            moment[items] = bin_moment[place]
            items += 1
            continue
        while i < values.shape[0] and places[i] == place:
            value, w = values[i], 0.0
            while i < values.shape[0] and values[i] == value:
                w += np.float64(weights[i]) if weighted else 1.0
                i += 1
            if w > 0.0:
                mass[items] = w
                moment[items] = w * (np.float64(value) - origin)
                items += 1
    starts[count] = items
    return starts, mass[:items], moment[:items]


@compiled()
def _best_cuts(sums, low, high):  # type: ignore[no-untyped-def]
    """The best ascending cuts, the q-th of them within low[q] to high[q].

    sums: (n + 1, 4), those of `running_sums`. As the end of the last run moves up, so does its best
    start: the starts for ends between two others lie between the starts of those.
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
        layer_starts = starts[offsets[q] : offsets[q + 1]]
        step = 1
        while step < size:
            step *= 2
        while step > 0:
            # Ends at odd multiples of a step: their neighbours at even multiples are done.
            for place in range(step - 1, size, 2 * step):
                begin = layer_starts[place - step] if place >= step else first
                end = layer_starts[place + step] if place + step < size else last
                best, chosen = np.inf, begin
                for i in range(begin, end + 1):
                    cost = costs[i - first] + run_cost(sums, i, low[q] + place)
                    if cost < best:
                        best, chosen = cost, i
                new_costs[place] = best
                layer_starts[place] = chosen
            step //= 2
        costs, first, last = new_costs, low[q], high[q]
    cuts = np.empty(layers, np.int64)
    end = sums.shape[0] - 1
    best = np.inf
    for i in range(first, last + 1):
        cost = costs[i - first] + run_cost(sums, i, end)
        if cost < best:
            best, cut = cost, i
    for q in range(layers - 1, -1, -1):
        cuts[q] = cut
        cut = starts[offsets[q] + cut - low[q]]
    return cuts
