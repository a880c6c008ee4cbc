"""Every library at every task: what is timed, and how the error of its answer is found.

A contender takes a weight (m, n) and returns the function that computes its relative error,
‖W - Ŵ‖²/‖W‖², when the clock has stopped. A peer that would take minutes works on a part of the
problem; `parts` says on which share, and the report divides its time by it.
"""

from collections.abc import Callable

import faiss
import kmeans1d
import numpy as np
import torch
from coremltools.models.neural_network.quantization_utils import (
    _get_kmeans_lookup_table_and_weight,
)
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import kmeans
from vqzoo.numerics.clustering.residual import residual_kmeans
from vqzoo.numerics.clustering.scalar_kmeans import scalar_kmeans

Error = Callable[[], float]
Array = NDArray[np.float32]


def relative(original: Array, rebuilt: Array) -> float:
    return float(((original - rebuilt) ** 2).sum(dtype=np.float64)) / float(
        (original**2).sum(dtype=np.float64)
    )


def blocks(weight: Tensor, d: int) -> Tensor:
    """(s, d, m): pq's problems."""
    m, n = weight.shape
    return weight.T.contiguous().view(n // d, d, m)


def vectors(weight: Tensor, d: int) -> Tensor:
    """(1, d, m·s): one problem, for a shared codebook; a view."""
    return weight.reshape(-1, d).T[None]


def rows(weight: Tensor, d: int) -> Array:
    """(m·s, d), as other libraries want it."""
    return np.ascontiguousarray(weight.reshape(-1, d).numpy())


def scalar_vqzoo(weight: Tensor, k: int) -> Error:
    found = scalar_kmeans(weight, k)
    return lambda: relative(weight.numpy(), found.centroids[found.codes.long()].numpy())


def scalar_exact(weight: Tensor, k: int) -> Error:
    found = scalar_kmeans(weight, k, exact=True)
    return lambda: relative(weight.numpy(), found.centroids[found.codes.long()].numpy())


def scalar_faiss(weight: Tensor, k: int) -> Error:
    return shared_faiss(weight, 1, k)


def scalar_coremltools(weight: Tensor, k: int) -> Error:
    bits = (k - 1).bit_length()
    table, codes = _get_kmeans_lookup_table_and_weight(bits, weight.half().numpy())
    return lambda: relative(
        weight.numpy().reshape(-1), np.float32(table).reshape(-1)[codes.reshape(-1)]
    )


def scalar_kmeans1d(weight: Tensor, k: int, share: float) -> Error:
    everything = weight.reshape(-1).numpy()
    found = kmeans1d.cluster(everything[:: round(1 / share)].copy(), k)
    centroids = np.float32(found.centroids)

    def error() -> float:  # of all numbers: those of a part are too few not to flatter it
        middles = (centroids[1:] + centroids[:-1]) / 2
        return relative(everything, centroids[np.searchsorted(middles, everything)])

    return error


def pq_vqzoo(weight: Tensor, d: int, k: int, tolerance: float = 1e-4) -> Error:
    points = blocks(weight, d)
    found = kmeans(points, k, tolerance=tolerance)

    def error() -> float:
        index = found.codes.long()[:, :, None].expand(-1, -1, d)
        return relative(points.numpy(), found.centroids.gather(1, index).transpose(1, 2).numpy())

    return error


def pq_sklearn(weight: Tensor, d: int, k: int, share: float) -> Error:
    problems = blocks(weight, d)[: part_of(weight, d, share)].transpose(1, 2).numpy()
    models = [KMeans(k, n_init=1, max_iter=25, random_state=0).fit(p) for p in problems]
    return lambda: sum(model.inertia_ for model in models) / float(np.sum(problems**2))


def pq_faiss(weight: Tensor, d: int, k: int, share: float) -> Error:
    problems = blocks(weight, d)[: part_of(weight, d, share)].transpose(1, 2).contiguous().numpy()
    distances = []
    for problem in problems:
        model = faiss.Kmeans(d, k, niter=25, seed=1, min_points_per_centroid=1)
        model.train(problem)
        distances.append(model.index.search(problem, 1)[0].sum())
    return lambda: float(sum(distances)) / float(np.sum(problems**2))


def part_of(weight: Tensor, d: int, share: float) -> int:
    return max(1, round(weight.shape[1] // d * share))


def shared_vqzoo(weight: Tensor, d: int, k: int) -> Error:
    points = vectors(weight, d)
    found = kmeans(points, k)
    return lambda: relative(points[0].numpy(), found.centroids[0][found.codes[0].long()].T.numpy())


def shared_faiss(weight: Tensor, d: int, k: int) -> Error:
    points = rows(weight, d)
    model = faiss.Kmeans(d, k, niter=25, seed=1)
    model.train(points)
    distances, _ = model.index.search(points, 1)
    return lambda: float(distances.sum(dtype=np.float64)) / float((points**2).sum(dtype=np.float64))


def rq_vqzoo(weight: Tensor, d: int, k: int, stages: int) -> Error:
    points = vectors(weight, d)
    found = residual_kmeans(points, k, stages)

    def error() -> float:
        rebuilt = torch.stack(
            [found.codebooks[0, t][found.codes[0, t].long()] for t in range(stages)]
        ).sum(0)
        return relative(points[0].numpy(), rebuilt.T.numpy())

    return error


def rq_faiss(weight: Tensor, d: int, k: int, stages: int) -> Error:
    points = rows(weight, d)
    coder = faiss.ResidualQuantizer(d, stages, (k - 1).bit_length())
    coder.max_beam_size = 5
    coder.train(points[np.random.default_rng(0).permutation(len(points))[:65536]])
    # In parts: all at once, it takes tens of gigabytes.
    parts = [points[i : i + (1 << 18)] for i in range(0, len(points), 1 << 18)]
    codes = np.concatenate([coder.compute_codes(part) for part in parts])
    return lambda: relative(points, coder.decode(codes))
