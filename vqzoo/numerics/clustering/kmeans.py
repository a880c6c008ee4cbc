"""Batched k-means on vectors: many small problems at once, or one large problem."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.torch_kmeans import assign_torch, train_torch
from vqzoo.numerics.arrays import Floats, as_float32, empty_codes, narrow_and_wide
from vqzoo.numerics.kernels.lloyd import lloyd_many
from vqzoo.numerics.kernels.lloyd_parallel import lloyd_parallel
from vqzoo.numerics.kernels.nearest import assign_many
from vqzoo.numerics.kernels.padded_points import PART
from vqzoo.numerics.threads import Progress, run_tasks

LARGE = 1 << 32  # multiply-adds of a problem above which its points are divided among threads
_TASK = 1 << 31  # multiply-adds a task: about 20 ms
_POINTS = 1 << 16  # points a task, where a problem is divided


@dataclass(frozen=True)
class Clusters:
    """Centroids and codes: point i of problem b becomes `centroids[b, codes[b, i]]`."""

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
    centroids: empty and nearly superfluous ones move to where a cluster is best split. The same
    seed gives the same result with any number of threads. Points on a device other than the CPU
    are clustered there, on CUDA by Triton kernels, otherwise in plain torch (see `torch_kmeans`),
    and the results stay there.

    Args:
        points: (batch, d, n), float32, float16 or bfloat16, finite: dimension-major, each
            dimension contiguous across points. For the blocks of d columns of a matrix W
            (m, s·d): `W.T.contiguous().view(s, d, m)`; for a codebook shared by all, batch = 1.
        k: centroids a problem, 1 <= k <= n.
        weights: (batch, n), >= 0: the importance of each point. If all weights of a problem are
            zero, they count as equal.
        seed: seed of the random draws.
        iterations: maximum of Lloyd's iterations.
        tolerance: stop when the error falls by less than this fraction of itself.
        sample: maximum of points to train on, a problem, drawn without replacement; None means all
            of them, up to the larger of 2^17 and 512 a centroid.
        progress: called as progress(done, total) from this thread.

    Returns:
        Centroids, and for *every* point the code of the nearest of them.

    Raises:
        ValueError: a shape, k or the weights are not as above, or a point is not finite.
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
    """Only the centroids of `kmeans`, (batch, k, d) float32, for codebooks that are rounded before
    points are assigned to them. Arguments and errors are the same.
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
    """The code of each point's nearest centroid, the lowest of equally near ones.

    Args:
        points: (batch, d, n), float32, float16 or bfloat16.
        centroids: (batch, k, d), float32.

    Returns:
        (batch, n), uint8 where k <= 256, else int32.

    Raises:
        ValueError: the shapes do not match.
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
    """Raise ValueError unless points (batch, d, n), k and weights are what `kmeans` takes."""
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
    """`train_codebooks` on all points, which with `scratch` may be overwritten on the CPU."""
    batch, d, n = points.shape
    if points.device.type != "cpu":
        return train_torch(points, k, weights, seed, iterations, tolerance, progress)
    centroids = torch.empty((batch, k, d), dtype=torch.float32)
    array = centroids.numpy()

    def masses(first: int, last: int) -> Floats:
        if weights is None:
            return np.ones((last - first, n), np.float32)
        return as_float32(weights[first:last])

    def train_some(bounds: tuple[int, int]) -> None:
        first, last = bounds
        part = as_float32(points[first:last])
        lloyd_many(part, masses(*bounds), seed, first, iterations, tolerance, array[first:last])

    work = n * k * d * max(iterations, 1)
    if work <= LARGE:
        run_tasks(train_some, _spans(batch, max(1, _TASK // work)), progress)
        return centroids
    for b in range(batch):

        def report(done: int, total: int, b: int = b) -> None:
            if progress is not None:
                progress(b * iterations + done, batch * iterations)

        array[b] = lloyd_parallel(
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

    If no sample size is given, it is 512 a centroid, and at least `least`.
    """
    # Bit 6 is set because rows of so many points need no padding (see `padded_points.row_stride`).
    limit = max(least, 512 * k) | PART if sample is None else max(sample, k)
    if n <= limit:
        return None
    starts = np.arange(limit + 1) * n // limit  # one point is drawn from each of `limit` stretches
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(starts[:-1], starts[1:]))
