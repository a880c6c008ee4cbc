"""Residual quantization: each point a sum of one centroid from each of several codebooks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.accelerated.torch_residual import encode_residual, train_residual
from vqzoo.numerics.arrays import Floats, as_float32, code_dtype
from vqzoo.numerics.clustering.kmeans import Progress, check_problem, choose_sample, train
from vqzoo.numerics.clustering.residual_schedule import REFIT_CONVERGED, REFIT_STEPS, ROUNDS
from vqzoo.numerics.kernels.beam import add_rest, beam_encode, take_off
from vqzoo.numerics.kernels.nearest import padded_count, prepare
from vqzoo.numerics.threads import run_tasks

Doubles = NDArray[np.float64]
Codes = NDArray[np.int32]
Narrow = NDArray[np.uint8]

_POINTS = 1 << 14  # points a task
_SAMPLE = 1 << 18  # points to train on, at least: several codebooks fit themselves to fewer
_REFIT_TASKS = 16  # partial sums
_TOLERANCE = 1e-4  # of the stages' k-means


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
    least-squares fit of all codebooks to the codes and of new codes by beam search. Points on
    another device than the CPU are trained on and encoded there, and the results stay there.

    Args:
        points: (batch, d, n), as in `kmeans`.
        k: centroids a stage, 1 <= k <= n.
        stages: at least 1.
        weights: (batch, n), >= 0: the importance of each point.
        seed: of the draws.
        beam: partial codes kept a stage; 1 is greedy.
        refit: whether to refit the codebooks jointly.
        iterations: of k-means, a stage, at most.
        sample: train on at most that many points of each problem; None:
            all of them, up to 2^18, or 512 a centroid.
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
    if points.device.type != "cpu":
        x, w = points, weights
        chosen = choose_sample(n, k, sample, seed, _SAMPLE)
        if chosen is not None:
            chosen = chosen.to(points.device)
            x, w = points[:, :, chosen], None if weights is None else weights[:, chosen]
        books = train_residual(x, w, k, stages, seed, beam, refit, iterations, progress)
        return ResidualClusters(books, encode_residual(points, books, beam))
    codebooks = torch.empty((batch, stages, k, d), dtype=torch.float32)
    codes = torch.empty((batch, stages, n), dtype=code_dtype(k))

    alone = progress if batch == 1 else None  # one problem tells how far it is, many are counted

    def solve(b: int) -> None:
        chosen = choose_sample(n, k, sample, seed, _SAMPLE)
        own_weights = None if weights is None else weights[b : b + 1]
        if own_weights is not None and chosen is not None:
            own_weights = own_weights[:, chosen]

        def sampled() -> Floats:
            own = points[b].clone() if chosen is None else points[b].index_select(1, chosen)
            return as_float32(own)

        found = _train(sampled, own_weights, k, stages, seed + b, beam, refit, iterations, alone)
        codebooks[b] = torch.from_numpy(found)
        _encode(as_float32(points[b]), found, beam, codes[b].numpy())

    run_tasks(solve, range(batch), None if alone else progress)
    if alone is not None:
        alone(1, 1)
    return ResidualClusters(codebooks, codes)


def _train(
    sampled: Callable[[], Floats],
    weights: Tensor | None,
    k: int,
    stages: int,
    seed: int,
    beam: int,
    refit: bool,
    iterations: int,
    progress: Progress | None,
) -> Floats:
    """Codebooks (stages, k, d) for the points that `sampled` gives: (d, n), anew at each call.

    One copy of them is held at a time: what a stage works on takes the place of the points.
    """
    steps = stages * (1 + ROUNDS)  # the codes of all points stand for the first stage's rounds
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    d, n = sampled().shape
    w = np.ones(n, np.float32) if weights is None else as_float32(weights)[0]
    codebooks = np.zeros((0, k, d), np.float32)
    codes = np.empty((stages, n), np.int32)
    for stage in range(stages):
        rest = sampled()
        take_off(codes[:stage], codebooks, rest)
        centroids = train(
            torch.from_numpy(rest)[None],
            k,
            weights,
            seed + stage,
            iterations,
            _TOLERANCE,
            None,
            scratch=True,
        )
        del rest
        codebooks = np.concatenate([codebooks, centroids.numpy()])
        x, so_far = sampled(), codes[: stage + 1]
        step()
        for _ in range(ROUNDS if refit and stage > 0 else 0):
            _encode(x, codebooks, beam, so_far)
            codebooks = _refit(x, w, so_far, codebooks)
            step()
        if stage < stages - 1:
            _encode(x, codebooks, beam, so_far)
        del x
    return codebooks


def _encode(x: Floats, codebooks: Floats, beam: int, codes: Codes | Narrow) -> None:
    """Write the codes of points (d, n) into codes (stages, n), int32 or, up to k = 256, uint8."""
    stages, k, d = codebooks.shape
    negated = np.empty((stages, padded_count(k) * d), np.float32)
    halves = np.empty((stages, padded_count(k)), np.float32)
    for stage in range(stages):
        prepare(codebooks[stage], negated[stage], halves[stage])

    def work(start: int) -> None:
        stop = min(start + _POINTS, x.shape[1])
        part = np.empty((stages, stop - start), np.int32)
        beam_encode(x, start, stop, k, negated.reshape(-1), halves, beam, part)
        codes[:, start:stop] = part

    run_tasks(work, range(0, x.shape[1], _POINTS))


def _refit(x: Floats, w: Floats, codes: Codes, codebooks: Floats) -> Floats:
    """The codebooks that fit x best with these codes: conjugate gradients from where they are.

    The normal equations couple centroids that meet in a point; their product with a vector is a
    decoding followed by a gathering, so that they are never written down.
    """
    stages, k, d = codebooks.shape
    n = x.shape[1]
    width = max(_POINTS, stages * k, -(-n // _REFIT_TASKS))
    nothing = np.empty((0, n), np.float32)

    def gathered(points: Floats, books: Doubles) -> tuple[Doubles, Doubles]:
        def work(start: int) -> tuple[Doubles, Doubles]:
            sums, masses = np.zeros((stages, k, d)), np.zeros((stages, k))
            add_rest(points, w, codes, books, start, min(start + width, n), sums, masses)
            return sums, masses

        parts = run_tasks(work, range(0, n, width))
        return np.sum([p[0] for p in parts], axis=0), np.sum([p[1] for p in parts], axis=0)

    solution = codebooks.astype(np.float64)
    gradient, masses = gathered(x, solution)
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)[:, :, None]
    direction = step = inverse * gradient
    norm = float((gradient * step).sum())
    converged = REFIT_CONVERGED * norm
    for _ in range(REFIT_STEPS):
        product = -gathered(nothing, direction)[0]
        curvature = float((direction * product).sum())
        if norm <= converged or curvature <= REFIT_CONVERGED * norm:
            break
        solution = solution + norm / curvature * direction
        gradient = gradient - norm / curvature * product
        step = inverse * gradient
        previous, norm = norm, float((gradient * step).sum())
        direction = step + norm / previous * direction
    return solution.astype(np.float32)
