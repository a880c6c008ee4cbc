"""k-means in which each problem has its own metric.

With H_b the second moment of the inputs that block b of a layer is multiplied with,
(x - c)ᵀ H_b (x - c) is the squared error that a centroid c causes in the layer's output (Stock et
al. 2020, arXiv 1907.05686, section 3.2).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans, train_codebooks
from vqzoo.numerics.threads import Progress

_CHUNK = 1 << 22  # values that are transformed at once: 16 MiB


def metric_kmeans(
    points: Tensor,
    metrics: Tensor,
    k: int,
    *,
    weights: Tensor | None = None,
    shared: bool = False,
    seed: int = 0,
    rounds: int = 8,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Clusters:
    """k-means on blocks of points, by the squared distance (x - c)ᵀ H_b (x - c).

    A codebook for each block is plain k-means on Lᵀx, with H = L Lᵀ. A single codebook for all
    blocks starts from k-means weighted by the metrics' traces and continues with Lloyd's
    iterations: the nearest centroids by each block's metric, then
    c_j = (Σ_b n_bj H_b)⁻¹ Σ_b H_b Σ_{i in j} x_bi, n_bj the number, or weight, of the points.

    Args:
        points: (blocks, d, n), float32, finite.
        metrics: (blocks, d, d), symmetric, positive definite.
        k: centroids a codebook, at most the number of its points.
        weights: (blocks, n), >= 0: the importance of each point.
        shared: whether all blocks share one codebook.
        seed: seed of the random draws.
        rounds: maximum of Lloyd's iterations of a shared codebook.
        tolerance: stop when the error falls by less than this fraction of itself.
        progress: called as progress(done, total) from this thread.

    Returns:
        Centroids (1 or blocks, k, d), and the codes (blocks, n) of the nearest ones.

    Raises:
        ValueError: the shapes do not match, or a metric is not positive definite.
    """
    factors = _factors(points, metrics)
    if not shared:
        clusters = kmeans(
            _transformed(points, factors), k, weights=weights, seed=seed, progress=progress
        )
        transformed = clusters.centroids.double().mT
        original = torch.linalg.solve_triangular(factors.mT, transformed, upper=True)
        return Clusters(original.mT.float().contiguous(), clusters.codes)
    blocks, d, n = points.shape
    mass = metrics.diagonal(dim1=1, dim2=2).mean(1).float()[:, None].expand(blocks, n)
    if weights is not None:
        mass = mass * weights
    centroids = train_codebooks(
        points.transpose(0, 1).reshape(1, d, blocks * n),
        k,
        weights=mass.reshape(1, -1),
        seed=seed,
        progress=progress,
    )
    best = float("inf")
    for _ in range(rounds):
        error, moved = _step(points, weights, metrics.double(), factors, centroids)
        if not best - error > tolerance * error:
            break
        centroids, best = moved, error
    return Clusters(centroids, assign_by_metric(points, metrics, centroids))


def assign_by_metric(points: Tensor, metrics: Tensor, centroids: Tensor) -> Tensor:
    """The code of each point's nearest centroid by its block's metric, (blocks, n).

    Args:
        points: (blocks, d, n), float32.
        metrics: (blocks, d, d), symmetric, positive definite.
        centroids: (1 or blocks, k, d), float32.

    Raises:
        ValueError: as `metric_kmeans`.
    """
    factors = _factors(points, metrics)
    return torch.cat([codes for _, codes in _assigned(points, factors, centroids)])


def _factors(points: Tensor, metrics: Tensor) -> Tensor:
    """(blocks, d, d) float64, lower: H = L Lᵀ."""
    blocks, d, _ = points.shape
    if metrics.shape != (blocks, d, d):
        raise ValueError(f"metrics must have shape {(blocks, d, d)}, not {tuple(metrics.shape)}")
    factors, failed = torch.linalg.cholesky_ex(metrics.double())
    if bool(failed.any()):
        raise ValueError("metrics must be positive definite")
    return factors


def _transformed(points: Tensor, factors: Tensor) -> Tensor:
    """Lᵀx, (blocks, d, n) float32, whose Euclidean distances are those of the metrics."""
    return factors.mT.float() @ points


def _assigned(points: Tensor, factors: Tensor, centroids: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the codes of the nearest centroids, some blocks at a time."""
    blocks, d, n = points.shape
    width = max(1, _CHUNK // (d * n))
    for first in range(0, blocks, width):
        part = slice(first, min(first + width, blocks))
        books = centroids.expand(blocks, -1, -1)[part].double() @ factors[part]
        yield part, assign(_transformed(points[part], factors[part]), books.float())


def _step(
    points: Tensor, weights: Tensor | None, metrics: Tensor, factors: Tensor, centroids: Tensor
) -> tuple[float, Tensor]:
    """The error of a shared codebook, and the codebook that is best for its codes."""
    d, k = points.shape[1], centroids.shape[1]
    gram = metrics.new_zeros(k, d * d)
    right = metrics.new_zeros(k, d)
    error = 0.0
    for part, codes in _assigned(points, factors, centroids):
        x, count = points[part].transpose(1, 2), part.stop - part.start
        index = (codes.long() + k * torch.arange(count, device=x.device)[:, None]).reshape(-1)
        residual = x - centroids[0][codes.long()]
        squares = (residual.double() @ factors[part]).square().sum(2)
        flat = x.reshape(-1, d).double()
        mass = None
        if weights is not None:
            mass = weights[part].reshape(-1).double()
            squares, flat = squares * weights[part], flat * mass[:, None]
        error += float(squares.sum())
        sums = metrics.new_zeros(count * k, d).index_add_(0, index, flat)
        counts = torch.bincount(index, mass, minlength=count * k).view(count, k).double()
        gram += counts.T @ metrics[part].reshape(count, d * d)
        right += torch.einsum("bij,bkj->ki", metrics[part], sums.view(count, k, d))
    filled = gram[:, 0] > 0
    moved = centroids.clone()
    moved[0, filled] = torch.linalg.solve(gram[filled].view(-1, d, d), right[filled]).float()
    return error, moved
