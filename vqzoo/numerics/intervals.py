"""k-means on a line as a shortest path: the optimal cut of sorted, weighted values into k runs.

The cost of a run obeys the Monge condition, so a price λ a run turns the k-run problem into one
without k (Aggarwal, Schieber, Tokuyama 1994; Grønlund et al. 2017, arXiv 1701.07204): the fewer
runs the higher the price. Each λ takes O(n log n); a search over λ finds the k runs.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def _cost(mass, moment, i, j):  # type: ignore[no-untyped-def]
    """Of values i to j - 1 as one run, less Σ w·v², which no cut changes."""
    m = mass[j] - mass[i]
    s = moment[j] - moment[i]
    return -s * s / m


@njit(nogil=True, cache=True)
def _priced_path(mass, moment, price, best, previous, starts, owners):  # type: ignore[no-untyped-def]
    """The cheapest path 0 → n at `price` a run, as previous[j]; returns its number of runs.

    best: (n + 1) float64; starts, owners: (n + 1) ints, a queue: from starts[q] on, owners[q] is
    the best start of a last run, among those seen.
    """
    n = mass.shape[0] - 1
    best[0] = 0.0
    head, tail = 0, 1
    starts[0], owners[0] = 1, 0
    for j in range(1, n + 1):
        if head + 1 < tail and starts[head + 1] <= j:
            head += 1
        i = owners[head]
        best[j] = best[i] + _cost(mass, moment, i, j) + price
        previous[j] = i
        if j == n:
            break
        # Where does a last run that starts at j win over the queue's owners? From some point on.
        while tail > head:
            at = max(starts[tail - 1], j + 1)
            owner = owners[tail - 1]
            if best[j] + _cost(mass, moment, j, at) < best[owner] + _cost(mass, moment, owner, at):
                tail -= 1
            else:
                break
        if tail == head:
            starts[tail], owners[tail] = j + 1, j
            tail += 1
            continue
        owner = owners[tail - 1]
        low, high = max(starts[tail - 1], j + 1), n + 1  # owner wins at low; j at high, if at all
        while high - low > 1:
            middle = (low + high) // 2
            if best[j] + _cost(mass, moment, j, middle) < best[owner] + _cost(
                mass, moment, owner, middle
            ):
                high = middle
            else:
                low = middle
        if high <= n:
            starts[tail], owners[tail] = high, j
            tail += 1
    runs = 0
    j = n
    while j > 0:
        j = previous[j]
        runs += 1
    return runs


@njit(nogil=True, cache=True)
def _cuts(previous, runs):  # type: ignore[no-untyped-def]
    cuts = np.empty(runs + 1, np.int64)
    j = previous.shape[0] - 1
    for r in range(runs, -1, -1):
        cuts[r] = j
        j = previous[j]
    return cuts


@njit(nogil=True, cache=True)
def optimal_cuts(mass, moment, k):  # type: ignore[no-untyped-def]
    """The optimal cut of n sorted values into k runs, 1 <= k <= n.

    mass, moment: (n + 1) float64, running sums of w and w·v from 0 on, v measured from near the
    mean, w > 0. Returns k + 1 ascending positions: run r is cuts[r] to cuts[r + 1] - 1.
    """
    n = mass.shape[0] - 1
    best = np.empty(n + 1, np.float64)
    previous = np.zeros(n + 1, np.int64)
    starts = np.empty(n + 1, np.int64)
    owners = np.empty(n + 1, np.int64)
    if k == n:
        return np.arange(n + 1)
    # One run costs nothing more than k at this price: the spread of all.
    high = 0.0
    for i in range(n):
        high -= _cost(mass, moment, i, i + 1)
    high += _cost(mass, moment, 0, n)
    high = max(high, 1e-300) * 2.0
    low = 0.0
    fewer = np.array([0, n])
    more = np.arange(n + 1)
    for _ in range(200):
        # The error falls like k^-2, a price is its slope: guess on that scale, then halve.
        a, b = fewer.shape[0] - 1, more.shape[0] - 1
        price = 0.5 * (low + high) if low > 0.0 else high * 0.05
        if low > 0.0 and high > 2.0 * low:
            price = np.sqrt(low * high)
        if price <= low or price >= high or b - a <= 1:
            break
        runs = _priced_path(mass, moment, price, best, previous, starts, owners)
        if runs == k:
            return _cuts(previous, runs)
        if runs < k:
            high = price
            fewer = _cuts(previous, runs)
        else:
            low = price
            more = _cuts(previous, runs)
    # Many cuts cost the same at this price: swap tails of the two at a run inside another one.
    shift = k - (fewer.shape[0] - 1)
    for i in range(fewer.shape[0] - 1):
        if more[i + shift] >= fewer[i] and more[i + shift + 1] <= fewer[i + 1]:
            return np.concatenate((more[: i + shift + 1], fewer[i + 1 :]))
    return np.concatenate((more[:k], more[-1:]))
