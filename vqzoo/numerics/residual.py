"""Residual quantization: each point a sum of one centroid from each of several codebooks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, as_float32, code_dtype
from vqzoo.numerics.beam import beam_encode, gather, reconstruct, transpose_codebooks
from vqzoo.numerics.kmeans import Progress, check_problem, choose_sample, kmeans
from vqzoo.numerics.threads import run_tasks
from vqzoo.numerics.vectors import LANES

Doubles = NDArray[np.float64]
Codes = NDArray[np.int32]

_POINTS = 1 << 14  # points a task
_CG_STEPS = 20


@dataclass(frozen=True)
class ResidualClusters:
    """What was found: Σ over t of `codebooks[b, t, codes[b, t, i]]` stands for point i of b."""

    codebooks: Tensor
    """(batch, stages, k, d), float32."""
    codes: Tensor
    """(batch, stages, n), uint8 where k <= 256, else int32."""


def residual_kmeans(
    points: Tensor,
    k: int,
    stages: int,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    beam: int = 8,
    refit: bool = True,
    iterations: int = 25,
    sample: int | None = None,
    progress: Progress | None = None,
) -> ResidualClusters:
    """Residual quantization (Chen et al. 2010) with beam search (Babenko, Lempitsky 2014).

    Each stage is k-means on what the stages before leave. Then, with `refit`, rounds of a joint
    least-squares fit of all codebooks to the codes and of new codes by beam search.

    Args:
        points: (batch, d, n), as in `kmeans`.
        k: centroids a stage, 1 <= k <= n.
        stages: at least 1.
        weights: (batch, n), >= 0: the importance of each point.
        seed: of the draws.
        beam: partial codes kept a stage; 1 is greedy.
        refit: whether to refit the codebooks jointly.
        iterations: of k-means, a stage, at most.
        sample: train on at most that many points of each problem; None: as `kmeans`.
        progress: called as progress(done, total) from this thread.

    Returns:
        Codebooks, and codes for every point.

    Raises:
        ValueError: as `kmeans`; stages or beam below 1.
    """
    check_problem(points, k, weights)
    if stages < 1 or beam < 1:
        raise ValueError(f"stages and beam must be at least 1, not {stages} and {beam}")
    batch, d, n = points.shape
    codebooks = torch.empty((batch, stages, k, d), dtype=torch.float32)
    codes = torch.empty((batch, stages, n), dtype=code_dtype(k))

    def solve(b: int) -> None:
        own = points[b : b + 1]
        own_weights = None if weights is None else weights[b : b + 1]
        chosen = choose_sample(n, k, sample, seed)
        if chosen is not None:
            own = own[:, :, chosen]
            own_weights = None if own_weights is None else own_weights[:, chosen]
        found = _train(own, own_weights, k, stages, seed + b, beam, refit, iterations)
        codebooks[b] = torch.from_numpy(found)
        codes[b] = torch.from_numpy(_encode(as_float32(points[b]), found, beam))

    run_tasks(solve, range(batch), progress)
    return ResidualClusters(codebooks, codes)


def _train(
    points: Tensor,
    weights: Tensor | None,
    k: int,
    stages: int,
    seed: int,
    beam: int,
    refit: bool,
    iterations: int,
) -> Floats:
    x = as_float32(points)[0]
    w = np.ones(x.shape[1], np.float32) if weights is None else as_float32(weights)[0]
    codebooks = np.zeros((0, k, x.shape[0]), np.float32)
    rest = x
    for stage in range(stages):
        clusters = kmeans(
            torch.from_numpy(rest)[None],
            k,
            weights=weights,
            seed=seed + stage,
            iterations=iterations,
            sample=x.shape[1],
        )
        codebooks = np.concatenate([codebooks, clusters.centroids.numpy()])
        rounds = 3 if refit and stage > 0 else 0
        codes = _encode(x, codebooks, beam)
        for _ in range(rounds):
            codebooks = _refit(x, w, codes, codebooks)
            codes = _encode(x, codebooks, beam)
        rest = x - _decoded(codes, codebooks)
    return codebooks


def _encode(x: Floats, codebooks: Floats, beam: int) -> Codes:
    stages, k, d = codebooks.shape
    padded = -(-k // LANES) * LANES
    columns = np.empty((stages, d, padded), np.float32)
    halves = np.empty((stages, padded), np.float32)
    transpose_codebooks(codebooks, columns, halves)
    codes = np.empty((stages, x.shape[1]), np.int32)

    def work(start: int) -> None:
        stop = min(start + _POINTS, x.shape[1])
        beam_encode(x, start, stop, columns, halves, beam, codes)

    run_tasks(work, range(0, x.shape[1], _POINTS))
    return codes


def _decoded(codes: Codes, codebooks: Floats | Doubles) -> Floats:
    result = np.empty((codebooks.shape[2], codes.shape[1]), np.float32)
    reconstruct(codes, codebooks.astype(np.float64), result)
    return result


def _refit(x: Floats, w: Floats, codes: Codes, codebooks: Floats) -> Floats:
    """The codebooks that fit x best with these codes: conjugate gradients from where they are.

    The normal equations couple centroids that meet in a point; their product with a vector is a
    decoding followed by a gathering, so that they are never written down.
    """
    stages, k, d = codebooks.shape
    masses = np.zeros((stages, k, 1))
    gather(np.ones((1, x.shape[1]), np.float32), w, codes, masses)
    inverse = np.where(masses > 0, 1.0 / np.maximum(masses, 1e-30), 0.0)

    def gathered(values: Floats) -> Doubles:
        sums = np.zeros((stages, k, d))
        gather(values, w, codes, sums)
        return sums

    solution = codebooks.astype(np.float64)
    gradient = gathered(x - _decoded(codes, solution))
    direction = step = inverse * gradient
    norm = float((gradient * step).sum())
    for _ in range(_CG_STEPS):
        product = gathered(_decoded(codes, direction))
        curvature = float((direction * product).sum())
        if curvature <= 0.0 or norm <= 0.0:
            break
        solution = solution + norm / curvature * direction
        gradient = gradient - norm / curvature * product
        step = inverse * gradient
        previous, norm = norm, float((gradient * step).sum())
        direction = step + norm / previous * direction
    return solution.astype(np.float32)
