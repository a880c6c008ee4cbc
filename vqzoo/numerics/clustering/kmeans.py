"""Batched vector k-means: many small problems at once, or one large one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.torch_kmeans import assign_torch, train_torch
from vqzoo.numerics.arrays import Floats, as_float32, empty_codes, narrow_and_wide
from vqzoo.numerics.kernels.lloyd import lloyd_many
from vqzoo.numerics.kernels.lloyd_parallel import lloyd_parallel
from vqzoo.numerics.kernels.nearest import assign_many
from vqzoo.numerics.kernels.vectors import PART
from vqzoo.numerics.threads import run_tasks

Progress = Callable[[int, int], None]

_TASK = 1 << 31  # multiply-adds a task: some 20 ms
_LARGE = 1 << 32  # multiply-adds a problem, from which on its points are shared out
_POINTS = 1 << 16  # points a task, where a problem is cut


@dataclass(frozen=True)
class Clusters:
    """What k-means found: `centroids[b, codes[b, i]]` stands for point i of problem b."""

    centroids: Tensor
    """(batch, k, d), float32."""
    codes: Tensor
    """(batch, n), uint8 where k <= 256, else int32."""


def kmeans(
    points: Tensor,
    k: int,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    iterations: int = 25,
    tolerance: float = 1e-4,
    sample: int | None = None,
    progress: Progress | None = None,
) -> Clusters:
    """k-means on each of a batch of problems, by squared Euclidean distance.

    k-means++ (Arthur, Vassilvitskii 2007), then Lloyd's iterations, some of which also relocate
    centroids: empty and near-superfluous ones go where a cluster is best split. The same seed
    gives the same result with any number of threads. Points on another device than the CPU are
    clustered there, on CUDA by Triton kernels, elsewhere in plain torch (see `torch_kmeans`), and
    the results stay there.

    Args:
        points: (batch, d, n), float32, float16 or bfloat16, finite: dimension-major, each
            dimension contiguous across points. For the blocks of d columns of a matrix W
            (m, s·d): `W.T.contiguous().view(s, d, m)`; for a codebook shared by all, batch = 1.
        k: centroids a problem, 1 <= k <= n.
        weights: (batch, n), >= 0: the importance of each point. Where a problem's weights are all
            zero, they count as equal.
        seed: of the draws.
        iterations: at most.
        tolerance: stop when the error falls by less than this part of itself.
        sample: train on at most that many points of each problem, drawn without replacement;
            None: all of them, up to 2^17, or 512 a centroid.
        progress: called as progress(done, total) from this thread.

    Returns:
        Centroids, and for *every* point the code of the nearest of them.

    Raises:
        ValueError: shapes, k or weights out of the above, or points that are not finite.
    """
    centroids = train_codebooks(
        points,
        k,
        weights=weights,
        seed=seed,
        iterations=iterations,
        tolerance=tolerance,
        sample=sample,
        progress=progress,
    )
    return Clusters(centroids, assign(points, centroids))


def train_codebooks(
    points: Tensor,
    k: int,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    iterations: int = 25,
    tolerance: float = 1e-4,
    sample: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The centroids of `kmeans` alone, (batch, k, d) float32: for codebooks that are rounded before
    points are assigned to them. Arguments and errors as there.
    """
    check_problem(points, k, weights)
    chosen = choose_sample(points.shape[2], k, sample, seed)
    if chosen is None:
        return train(points, k, weights, seed, iterations, tolerance, progress)
    chosen = chosen.to(points.device)
    part = points.index_select(2, chosen)
    part_weights = None if weights is None else weights[:, chosen]
    del chosen  # 8 bytes a point
    return train(part, k, part_weights, seed, iterations, tolerance, progress, scratch=True)


def assign(points: Tensor, centroids: Tensor) -> Tensor:
    """The code of the nearest centroid, for each point; of equally near ones the lowest.

    Args:
        points: (batch, d, n), float32, float16 or bfloat16.
        centroids: (batch, k, d), float32.

    Returns:
        (batch, n), uint8 where k <= 256, else int32.

    Raises:
        ValueError: shapes that do not match.
    """
    batch, d, n = points.shape
    if centroids.dim() != 3 or centroids.shape[0] != batch or centroids.shape[2] != d:
        raise ValueError(
            f"centroids of shape {tuple(centroids.shape)} do not fit points of shape "
            f"{tuple(points.shape)}: expected ({batch}, k, {d})"
        )
    k = centroids.shape[1]
    if points.device.type != "cpu":
        return assign_torch(points, centroids)
    codes = empty_codes((batch, n), k)
    codes8, codes32 = narrow_and_wide(codes)
    centers = as_float32(centroids)
    width = max(1, min(n, _POINTS))
    problems = max(1, _TASK // (width * k * d))
    spans = [(p, q) for p in _spans(batch, problems) for q in _spans(n, width)]

    def work(span: tuple[tuple[int, int], tuple[int, int]]) -> None:
        (first, last), (start, stop) = span
        part = as_float32(points[first:last, :, start:stop])
        assign_many(part, centers[first:last], start, codes8[first:last], codes32[first:last])

    run_tasks(work, spans)
    return codes


def check_problem(points: Tensor, k: int, weights: Tensor | None) -> None:
    """Raises ValueError where points (batch, d, n), k and weights make no problem."""
    if points.dim() != 3:
        raise ValueError(f"points must have shape (batch, d, n), not {tuple(points.shape)}")
    batch, _, n = points.shape
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of points ({n}), not {k}")
    if weights is None:
        return
    if weights.shape != (batch, n):
        raise ValueError(f"weights must have shape {(batch, n)}, not {tuple(weights.shape)}")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError("weights must be finite and not negative")


def train(
    points: Tensor,
    k: int,
    weights: Tensor | None,
    seed: int,
    iterations: int,
    tolerance: float,
    progress: Progress | None,
    scratch: bool = False,
) -> Tensor:
    """`train_codebooks` on all points.

    On the CPU, `scratch` points may be overwritten.
    """
    batch, d, n = points.shape
    if points.device.type != "cpu":
        return train_torch(points, k, weights, seed, iterations, tolerance, progress)
    centroids = torch.empty((batch, k, d), dtype=torch.float32)
    found = centroids.numpy()

    def masses(first: int, last: int) -> Floats:
        if weights is None:
            return np.ones((last - first, n), np.float32)
        return as_float32(weights[first:last])

    def train(bounds: tuple[int, int]) -> None:
        first, last = bounds
        part = as_float32(points[first:last])
        lloyd_many(part, masses(*bounds), seed, first, iterations, tolerance, found[first:last])

    work = n * k * d * max(iterations, 1)
    if work <= _LARGE:
        run_tasks(train, _spans(batch, max(1, _TASK // work)), progress)
        return centroids
    for b in range(batch):

        def report(done: int, total: int, b: int = b) -> None:
            if progress is not None:
                progress(b * iterations + done, batch * iterations)

        found[b] = lloyd_parallel(
            as_float32(points[b]),
            masses(b, b + 1)[0],
            k,
            seed,
            b,
            iterations,
            tolerance,
            report,
            scratch,
        )
    if progress is not None:
        progress(batch * iterations, batch * iterations)
    return centroids


def _spans(count: int, width: int) -> list[tuple[int, int]]:
    return [(start, min(start + width, count)) for start in range(0, count, width)]


def choose_sample(
    n: int, k: int, sample: int | None, seed: int, least: int = 1 << 17
) -> Tensor | None:
    """Ascending positions of the points to train on; None for all of them.

    Where no sample size is given it is 512 a centroid, and not less than `least`.
    """
    # Bit 6: rows of so many points need no padding (see `vectors.row_stride`).
    limit = max(least, 512 * k) | PART if sample is None else max(sample, k)
    if n <= limit:
        return None
    starts = np.arange(limit + 1) * n // limit  # one from each of as many stretches
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(starts[:-1], starts[1:]))
