"""Residual quantization on an accelerator, for many problems at once: what `residual` does."""

from collections.abc import Callable

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import Kernels, kernels_for
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, around_zero
from vqzoo.numerics.accelerated.torch_kernels import ALL, first_smallest
from vqzoo.numerics.accelerated.torch_kmeans import mass_of, train_torch
from vqzoo.numerics.arrays import code_dtype
from vqzoo.numerics.clustering.residual_schedule import REFIT_CONVERGED, REFIT_STEPS, ROUNDS

_VALUES = 1 << 24  # of the problems that are trained side by side
_SCORES = 1 << 26  # of partial codes, held at a time
_TOLERANCE = 1e-4  # of k-means, its default


def train_residual(
    points: Tensor,
    weights: Tensor | None,
    k: int,
    stages: int,
    seed: int,
    beam: int,
    refit: bool,
    iterations: int,
    progress: Callable[[int, int], None] | None,
    kernels: Kernels | None = None,
) -> Tensor:
    """Codebooks (batch, stages, k, d) for points (batch, d, n), on their device."""
    batch, d, n = points.shape
    kernels = kernels or kernels_for(points.device, d)
    codebooks = torch.empty((batch, stages, k, d), device=points.device)
    group = max(1, _VALUES // (n * d))
    done, total = 0, -(-batch // group) * stages
    for first in range(0, batch, group):
        part = slice(first, first + group)
        x = points[part].float()
        w = None if weights is None else weights[part]
        rest, found = x, codebooks[part]
        for stage in range(stages):
            found[:, stage] = train_torch(
                rest, k, w, seed + first + stage, iterations, _TOLERANCE, kernels=kernels
            )
            books = found[:, : stage + 1]
            codes = encode_residual(x, books, beam, kernels)
            for _ in range(ROUNDS if refit and stage > 0 else 0):
                books.copy_(_refit(x, None if w is None else mass_of(w), codes, books, kernels))
                codes = encode_residual(x, books, beam, kernels)
            rest = x - _decoded(codes, books)
            done += 1
            if progress is not None:
                progress(done, total)
    return codebooks


def encode_residual(
    points: Tensor, codebooks: Tensor, beam: int, kernels: Kernels | None = None
) -> Tensor:
    """Codes (batch, stages, n) of points (batch, d, n), by a beam of partial codes."""
    batch, d, n = points.shape
    stages, k = codebooks.shape[1:3]
    kernels = kernels or kernels_for(points.device, d)
    codes = torch.empty((batch, stages, n), dtype=code_dtype(k), device=points.device)
    width = max(1, min(n, _SCORES // (beam * k)))
    group = max(1, _SCORES // (beam * k * width))
    for first in range(0, batch, group):
        part = slice(first, first + group)
        for start in range(0, n, width):
            some = points[part, :, start : start + width].float()
            found = _encode(some, codebooks[part], beam, kernels)
            codes[part, :, start : start + width] = found.to(codes.dtype)
    return codes


def _encode(points: Tensor, codebooks: Tensor, beam: int, kernels: Kernels) -> Tensor:
    """(batch, stages, n), int64."""
    batch, d, n = points.shape
    stages, k = codebooks.shape[1:3]
    rest = points.transpose(1, 2)[:, :, None]  # (batch, n, entries, d)
    paths = torch.empty((batch, n, 1, 0), dtype=torch.int64, device=points.device)
    for stage in range(stages - 1):
        book = codebooks[:, stage]
        errors = book.square().sum(2)[:, None, None] / 2 + rest.square().sum(3, keepdim=True) / 2
        errors = errors - (rest.flatten(1, 2) @ book.transpose(1, 2)).view_as(errors)
        found = errors.flatten(2).topk(min(beam, errors.shape[2] * k), 2, largest=False).indices
        entry, code = found // k, found % k
        rest = _pick(rest, entry) - _rows(book, code)
        paths = torch.cat([_pick(paths, entry), code[..., None]], 3)
    # Of the last stage only the best counts.
    entries = rest.shape[2]
    flat = ScaledPoints(
        rest.flatten(1, 2).transpose(1, 2), rest.new_zeros(batch, d), rest.new_ones(batch)
    )
    code, costs = kernels.nearest(flat, codebooks[:, -1].contiguous(), True)
    best = first_smallest(costs.view(batch, n, entries))[..., None]
    last = code.view(batch, n, entries).gather(2, best)
    return torch.cat([_pick(paths, best)[:, :, 0], last.long()], 2).transpose(1, 2)


def _refit(
    x: Tensor, mass: Tensor | None, codes: Tensor, codebooks: Tensor, kernels: Kernels
) -> Tensor:
    """The codebooks that fit x best with these codes: conjugate gradients from where they are.

    As `residual._refit`, for each problem of the batch by itself.
    """
    stages, k = codebooks.shape[1:3]
    by_stage = [codes[:, t].contiguous() for t in range(stages)]

    def gathered(rest: Tensor) -> tuple[Tensor, Tensor]:
        seen = around_zero(rest)
        parts = [kernels.add_up(seen, mass, own, k, ALL) for own in by_stage]
        sums = torch.stack([part[0] for part in parts], 1)
        masses = torch.stack([part[1] for part in parts], 1)
        return sums / seen.scale[:, None, None, None], masses

    gradient, masses = gathered(x - _decoded(codes, codebooks))
    solution = codebooks.to(gradient.dtype)
    inverse = torch.where(masses > 0, 1.0 / masses.clamp(min=1e-30), 0.0)[..., None]
    direction = step = inverse * gradient
    norm = _inner(gradient, step)
    converged = REFIT_CONVERGED * norm
    running = torch.ones_like(norm, dtype=torch.bool)
    for _ in range(REFIT_STEPS):
        product = gathered(_decoded(codes, direction.float()))[0]
        curvature = _inner(direction, product)
        running &= (norm > converged) & (curvature > REFIT_CONVERGED * norm)
        length = torch.where(running, norm / torch.where(running, curvature, 1.0), 0.0)
        solution = solution + length * direction
        gradient = gradient - length * product
        step = inverse * gradient
        previous, norm = norm, _inner(gradient, step)
        direction = step + norm / torch.where(running, previous, 1.0) * direction
    return solution.float()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """(batch, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True)


def _decoded(codes: Tensor, codebooks: Tensor) -> Tensor:
    """(batch, d, n)."""
    total = _rows(codebooks[:, 0], codes[:, 0].long())
    for stage in range(1, codes.shape[1]):
        total = total + _rows(codebooks[:, stage], codes[:, stage].long())
    return total.transpose(1, 2)


def _rows(book: Tensor, codes: Tensor) -> Tensor:
    """book (batch, k, d) at codes (batch, ...): (batch, ..., d)."""
    index = codes.flatten(1)[..., None].expand(-1, -1, book.shape[2])
    return book.gather(1, index).view(*codes.shape, -1)


def _pick(entries: Tensor, which: Tensor) -> Tensor:
    """entries (batch, n, e, ...) at which (batch, n, f): (batch, n, f, ...)."""
    return entries.gather(2, which[..., None].expand(-1, -1, -1, entries.shape[3]))
