"""Lloyd's iterations on one large problem, its points divided among threads."""

from collections.abc import Callable

import numpy as np

from vqzoo.numerics.arrays import Doubles, Floats
from vqzoo.numerics.kernels.lloyd import update
from vqzoo.numerics.kernels.nearest import padded_count, prepare
from vqzoo.numerics.kernels.padded_points import center, pad_weights, row_stride, uncenter
from vqzoo.numerics.kernels.relocation import patience, relocate, widest
from vqzoo.numerics.kernels.seeding import generator, seed_plus_plus
from vqzoo.numerics.kernels.sweeps import add_squares, add_upper, squared_norms, sweep
from vqzoo.numerics.kernels.vectors import LANES
from vqzoo.numerics.threads import Progress, run_tasks

SEED_CENTROIDS = 4096  # above that many, k-means++ takes longer than the iterations that it saves
_TASKS = 32  # parts that the points are cut into at most, each with its own sums
_TASK = 1 << 24  # multiply-adds a part, at least
_THIN = 8  # half of the iterations run on every eighth point,
_THIN_POINTS = 32  # if that leaves at least so many points a centroid
_SEED_POINTS = 32  # points a centroid that k-means++ draws from


def lloyd_parallel(
    points: Floats,
    weights: Floats,
    k: int,
    seed: int,
    number: int,
    iterations: int,
    tolerance: float,
    progress: Progress,
    scratch: bool = False,
) -> Floats:
    """Do what `lloyd_many` does, to problem `number` of a batch: points (d, n), weights (n).

    progress(done, iterations) is called after each iteration. With `scratch` the points may be
    overwritten. Returns centroids (k, d).
    """
    d, n = points.shape
    stride = row_stride(n)
    in_place = scratch and stride == n
    x = points.reshape(-1) if in_place else np.zeros(d * stride, np.float32)
    offset = np.empty(d, np.float32)
    scale = center(points, offset, x, stride)
    masses = np.zeros(stride, np.float32)
    pad_weights(weights, masses)
    scaled = _seeds(x.reshape(d, stride), masses, k, seed, number)
    early = iterations // 2 if n >= _THIN * _THIN_POINTS * k else 0
    if early:
        part, part_masses = _padded(x.reshape(d, stride)[:, :n:_THIN], masses[:n:_THIN])
        _iterate(part, part_masses, early, tolerance, scaled, lambda done, _: None)
        progress(early, iterations)
    _iterate(
        x.reshape(d, stride),
        masses,
        iterations - early,
        tolerance,
        scaled,
        lambda done, total: progress(early + done, iterations),
    )
    centroids = np.empty((k, d), np.float32)
    uncenter(scaled, scale, offset, centroids)
    return centroids


def _seeds(x: Floats, masses: Floats, k: int, seed: int, number: int) -> Doubles:
    """Centroids (k, d) by k-means++ on a sample of the points; if k is very large, the sample."""
    d = len(x)
    random = np.random.default_rng([seed % (1 << 64), number])
    drawn = np.flatnonzero(masses)
    size = k if k > SEED_CENTROIDS else _SEED_POINTS * k
    if size < len(drawn):
        drawn = np.sort(random.choice(drawn, size, replace=False))
    if k > SEED_CENTROIDS and len(drawn) == k:
        return x[:, drawn].T.astype(np.float64)
    part, part_masses = _padded(x[:, drawn], masses[drawn])
    centroids = np.empty((k, d), np.float64)
    stride = part.shape[1]
    seed_plus_plus(part.reshape(-1), stride, d, part_masses, generator(seed, number), centroids)
    return centroids


def _padded(x: Floats, masses: Floats) -> tuple[Floats, Floats]:
    """Points (d, n) and weights (n) as the kernels take them: contiguous, whole vectors."""
    d, n = x.shape
    count = row_stride(n)
    part, part_masses = np.zeros((d, count), np.float32), np.zeros(count, np.float32)
    part[:, :n], part_masses[:n] = x, masses
    return part, part_masses


def _iterate(
    points: Floats,
    masses: Floats,
    iterations: int,
    tolerance: float,
    centroids: Doubles,
    progress: Progress,
) -> None:
    """`lloyd.lloyd` on points (d, stride), with every pass over the points in parallel."""
    d, stride = points.shape
    x = points.reshape(-1)
    k = len(centroids)
    negated = np.empty(padded_count(k) * d, np.float32)
    halves = np.empty(padded_count(k), np.float32)
    codes = np.empty(stride, np.int32)
    axes, borders = np.zeros(k, np.int64), np.zeros(k, np.float64)
    tasks = max(1, min(_TASKS, stride * k * d // _TASK))
    width = -(-stride // (tasks * LANES)) * LANES
    spans = [(start, min(start + width, stride)) for start in range(0, stride, width)]

    # One buffer a part for everything that is summed: temporaries would fragment the heap.
    part_sums, part_counts = np.empty((len(spans), k, d)), np.empty((len(spans), k))

    def summed(work: Callable[[int, Doubles, Doubles], float]) -> tuple[Doubles, Doubles, float]:
        """The totals, over all parts, of what `work` adds to zeroed buffers and what it returns."""

        def run(part: int) -> float:
            part_sums[part], part_counts[part] = 0.0, 0.0
            return work(part, part_sums[part], part_counts[part])

        errors = run_tasks(run, range(len(spans)))
        return part_sums.sum(axis=0), part_counts.sum(axis=0), sum(errors)

    def assign(part: int, sums: Doubles, counts: Doubles) -> float:
        return sweep(x, stride, *spans[part], d, masses, negated, halves, codes, sums, counts)

    def spread(part: int, squares: Doubles, _: Doubles) -> float:
        add_squares(x, stride, *spans[part], masses, codes, squares)
        return 0.0

    def halve(part: int, sums: Doubles, counts: Doubles) -> float:
        add_upper(x, stride, *spans[part], masses, codes, axes, borders, sums, counts)
        return 0.0

    norms = squared_norms(x, stride, d, masses)
    previous = np.inf
    relocated = 0
    kept = centroids
    for iteration in range(iterations):
        prepare(centroids, negated, halves)
        sums, counts, scores = summed(assign)
        error = norms + scores
        progress(iteration + 1, iterations)
        if relocated > 0 and error > previous:
            centroids[:] = kept
            relocated = 0
            continue
        if relocated == 0 and previous - error <= tolerance * error:
            break
        previous = error
        update(sums, counts, centroids)
        relocated = 0
        threshold = patience(iteration, iterations)
        if threshold > 0.0:
            widest(sums, counts, summed(spread)[0], axes, borders)
            upper_sums, upper_counts, _ = summed(halve)
            relocated = relocate(sums, counts, upper_sums, upper_counts, threshold)
            if relocated > 0:
                kept = centroids.copy()
                update(sums, counts, centroids)
