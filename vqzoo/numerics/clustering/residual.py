"""Residual quantization: each point a sum of one centroid from each of several codebooks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.torch_residual import encode_residual, train_residual
from vqzoo.numerics.arrays import Codes, Floats, NarrowCodes, as_float32, code_dtype
from vqzoo.numerics.clustering.kmeans import check_problem, choose_sample, train
from vqzoo.numerics.clustering.refit import ROUNDS, refit_codebooks
from vqzoo.numerics.kernels.beam import beam_encode, subtract_decoded
from vqzoo.numerics.kernels.nearest import padded_count, prepare
from vqzoo.numerics.threads import Progress, run_tasks

_POINTS = 1 << 14  # points a task
_SAMPLE = 1 << 18  # points to train on, at least: several codebooks would overfit fewer
_TOLERANCE = 1e-4  # of each stage's k-means


@dataclass(frozen=True)
class ResidualClusters:
    """Codebooks and codes: point i of problem b becomes Σ_t `codebooks[b, t, codes[b, t, i]]`."""

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

    Each stage is k-means on the residual that the stages before it leave. With `refit`, every
    stage but the first is followed by rounds of a joint least-squares fit of all codebooks so far
    and of new codes by beam search. Points on a device other than the CPU are clustered and encoded
    there, and the results stay there.

    Args:
        points: (batch, d, n), as in `kmeans`.
        k: centroids a stage, 1 <= k <= n.
        stages: number of codebooks, at least 1.
        weights: (batch, n), >= 0: the importance of each point.
        seed: seed of the random draws.
        beam: partial codes kept a stage; 1 is greedy.
        refit: whether to refit the codebooks jointly.
        iterations: maximum of k-means iterations, a stage.
        sample: maximum of points to train on, a problem; None means all of them, up to the larger
            of 2^18 and 512 a centroid.
        progress: called as progress(done, total) from this thread.

    Returns:
        Codebooks, and codes for every point.

    Raises:
        ValueError: as `kmeans`, or `stages` or `beam` is below 1.
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

    # A single problem reports its steps; of several, those that are done are counted.
    steps = progress if batch == 1 else None

    def solve(b: int) -> None:
        chosen = choose_sample(n, k, sample, seed, _SAMPLE)
        w = None if weights is None else weights[b : b + 1]
        if w is not None and chosen is not None:
            w = w[:, chosen]

        def training_points() -> Floats:
            copy = points[b].clone() if chosen is None else points[b].index_select(1, chosen)
            return as_float32(copy)

        books = _train(training_points, w, k, stages, seed + b, beam, refit, iterations, steps)
        codebooks[b] = torch.from_numpy(books)
        _encode(as_float32(points[b]), books, beam, codes[b].numpy())

    run_tasks(solve, range(batch), None if steps else progress)
    if steps is not None:
        steps(1, 1)
    return ResidualClusters(codebooks, codes)


def residual_codes(points: Tensor, codebooks: Tensor, *, beam: int = 8) -> Tensor:
    """Encode points by beam search with given codebooks.

    Args:
        points: (batch, d, n), float32, finite.
        codebooks: (batch, stages, k, d), float32.
        beam: partial codes kept a stage; 1 is greedy.

    Returns:
        (batch, stages, n), uint8 where k <= 256, else int32.
    """
    if points.device.type != "cpu":
        return encode_residual(points, codebooks, beam)
    batch, stages, k, _ = codebooks.shape
    codes = torch.empty((batch, stages, points.shape[2]), dtype=code_dtype(k))
    for b in range(batch):
        _encode(as_float32(points[b]), as_float32(codebooks[b]), beam, codes[b].numpy())
    return codes


def _train(
    training_points: Callable[[], Floats],
    weights: Tensor | None,
    k: int,
    stages: int,
    seed: int,
    beam: int,
    refit: bool,
    iterations: int,
    progress: Progress | None,
) -> Floats:
    """Codebooks (stages, k, d) for the points (d, n) that `training_points` copies at each call.

    Only one copy is held at a time: a stage's residuals take the place of the points.
    """
    # The first stage has no rounds: encoding all points at the end counts in their place.
    steps = stages * (1 + ROUNDS)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    d, n = training_points().shape
    w = np.ones(n, np.float32) if weights is None else as_float32(weights)[0]
    codebooks = np.zeros((0, k, d), np.float32)
    codes = np.empty((stages, n), np.int32)
    for stage in range(stages):
        residuals = training_points()
        subtract_decoded(codes[:stage], codebooks, residuals)
        centroids = train(
            torch.from_numpy(residuals)[None],
            k,
            weights,
            seed + stage,
            iterations,
            _TOLERANCE,
            None,
            scratch=True,
        )
        del residuals
        codebooks = np.concatenate([codebooks, centroids.numpy()])
        x, stage_codes = training_points(), codes[: stage + 1]
        step()
        for _ in range(ROUNDS if refit and stage > 0 else 0):
            _encode(x, codebooks, beam, stage_codes)
            codebooks = refit_codebooks(x, w, stage_codes, codebooks)
            step()
        if stage < stages - 1:
            _encode(x, codebooks, beam, stage_codes)
        del x
    return codebooks


def _encode(x: Floats, codebooks: Floats, beam: int, codes: Codes | NarrowCodes) -> None:
    """Write the codes of points (d, n) to codes (stages, n), int32 or, up to k = 256, uint8."""
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
