"""k-means on a line as a shortest path: the optimal cut of sorted, weighted values into k runs.

The cost of a run satisfies the Monge condition, so a price λ a run turns the k-run problem into one
without k (Aggarwal, Schieber, Tokuyama 1994; Grønlund et al. 2017, arXiv 1701.07204): the higher
the price, the fewer runs. Each λ takes O(n log n); a search over λ finds the k runs.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled

_COARSE = 8  # values that count as one in the first, coarse search for the price


@compiled()
def running_sums(mass, moment):  # type: ignore[no-untyped-def]
    """The sums that `run_cost` needs of n values (or bins of values) of masses w and moments w·v.

    Returns (n + 1, 4) float64, running sums from 0 on: of w, of w·v, and of w·v² as a high and a
    low part. A single number would lose the squares of the other values beside a far outlier's.
    """
    n = mass.shape[0]
    sums = np.zeros((n + 1, 4), np.float64)
    for i in range(n):
        square = moment[i] * moment[i] / mass[i]
        high = sums[i, 2] + square
        added = high - sums[i, 2]
        lost = (sums[i, 2] - (high - added)) + (square - added)  # Knuth's two-sum
        sums[i + 1, 0] = sums[i, 0] + mass[i]
        sums[i + 1, 1] = sums[i, 1] + moment[i]
        sums[i + 1, 2] = high
        sums[i + 1, 3] = sums[i, 3] + lost
    return sums


@compiled()
def run_cost(sums, i, j):  # type: ignore[no-untyped-def]
    """The squared error of values i to j - 1 as one run, not counting the error within bins.

    It is infinite if the run is empty or its mass is lost in the sum.
    """
    m = sums[j, 0] - sums[i, 0]
    if m <= 0.0:
        return np.inf
    s = sums[j, 1] - sums[i, 1]
    return (sums[j, 2] - sums[i, 2]) + (sums[j, 3] - sums[i, 3]) - s * s / m


@compiled()
def _priced_path(sums, price, best, previous, starts, owners):  # type: ignore[no-untyped-def]
    """Write the cheapest path 0 → n at `price` a run to previous[j]; return its number of runs.

    Buffers: best (n + 1) float64; starts and owners (n + 1) ints, a queue: for ends from starts[q]
    on, owners[q] is the best start of the last run among those seen so far.
    """
    n = sums.shape[0] - 1
    best[0] = 0.0
    head, tail = 0, 1
    starts[0], owners[0] = 1, 0
    for j in range(1, n + 1):
        if head + 1 < tail and starts[head + 1] <= j:
            head += 1
        i = owners[head]
        best[j] = best[i] + run_cost(sums, i, j) + price
        previous[j] = i
        if j == n:
            break
        # From some end on, a last run that starts at j is cheaper than those of the queue's owners.
        while tail > head:
            at = max(starts[tail - 1], j + 1)
            owner = owners[tail - 1]
            if best[j] + run_cost(sums, j, at) < best[owner] + run_cost(sums, owner, at):
                tail -= 1
            else:
                break
        if tail == head:
            starts[tail], owners[tail] = j + 1, j
            tail += 1
            continue
        owner = owners[tail - 1]
        low, high = max(starts[tail - 1], j + 1), n + 1  # owner wins at low, j at high, if ever
        while high - low > 1:
            middle = (low + high) // 2
            if best[j] + run_cost(sums, j, middle) < best[owner] + run_cost(sums, owner, middle):
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


@compiled()
def _cuts(previous, runs):  # type: ignore[no-untyped-def]
    cuts = np.empty(runs + 1, np.int64)
    j = previous.shape[0] - 1
    for r in range(runs, -1, -1):
        cuts[r] = j
        j = previous[j]
    return cuts


@compiled()
def _highest_price(sums):  # type: ignore[no-untyped-def]
    """A price at which one run is as cheap as any other number: twice the error of one run."""
    n = sums.shape[0] - 1
    return max(run_cost(sums, 0, n), 1e-300) * 2.0


@compiled()
def _search(sums, k, guess):  # type: ignore[no-untyped-def]
    """The optimal cut into k < n runs, and its price; `guess` is of the price, 0 for none."""
    n = sums.shape[0] - 1
    best = np.empty(n + 1, np.float64)
    previous = np.zeros(n + 1, np.int64)
    starts = np.empty(n + 1, np.int64)
    owners = np.empty(n + 1, np.int64)
    low, high = 0.0, _highest_price(sums)
    price = guess if 0.0 < guess < high else high * 0.05
    step = 1.0 + 1.0 / k if guess > 0.0 else 20.0  # k runs are optimal over about 3/k of a price
    fewer = np.array([0, n])
    more = np.arange(n + 1)
    for _ in range(200):
        a, b = fewer.shape[0] - 1, more.shape[0] - 1
        if price <= low or price >= high or b - a <= 1:
            break
        runs = _priced_path(sums, price, best, previous, starts, owners)
        if runs == k:
            return _cuts(previous, runs), price
        if runs < k:
            high = price
            fewer = _cuts(previous, runs)
        else:
            low = price
            more = _cuts(previous, runs)
        # The error falls like k^-2 and a price is its slope: guess on that scale, then halve.
        if low == 0.0:
            price = high / step
        elif fewer.shape[0] == 2:
            price = low * step
            if price >= high:
                price = np.sqrt(low * high)
        else:
            price = np.sqrt(low * high) if high > 2.0 * low else 0.5 * (low + high)
        step *= step
    # Many cuts cost the same at this price: join two of them at a run that lies within another.
    shift = k - (fewer.shape[0] - 1)
    for i in range(fewer.shape[0] - 1):
        if more[i + shift] >= fewer[i] and more[i + shift + 1] <= fewer[i + 1]:
            return np.concatenate((more[: i + shift + 1], fewer[i + 1 :])), price
    return np.concatenate((more[:k], more[-1:])), price


@compiled()
def optimal_cuts(sums, k):  # type: ignore[no-untyped-def]
    """The optimal cut of n sorted values into k runs, 1 <= k <= n.

    sums: those of `running_sums`, with w > 0 and v measured from near the mean. Returns k + 1
    ascending positions: run r is cuts[r] to cuts[r + 1] - 1.
    """
    n = sums.shape[0] - 1
    if k == n:
        return np.arange(n + 1)
    guess = 0.0
    if n >= _COARSE * _COARSE * k:  # a few values already show the price
        places = np.append(np.arange(0, n, _COARSE), n)
        guess = _search(sums[places], k, 0.0)[1]
    return _search(sums, k, guess)[0]
