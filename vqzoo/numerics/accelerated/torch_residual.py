"""Residual quantization on an accelerator, for many problems at once; `residual` specifies it."""

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import Kernels, kernels_for
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, around_zero
from vqzoo.numerics.accelerated.torch_kernels import ALL, first_smallest
from vqzoo.numerics.accelerated.torch_kmeans import mass_of, train_torch
from vqzoo.numerics.arrays import code_dtype
from vqzoo.numerics.clustering.refit import CONVERGED, ROUNDS, STEPS
from vqzoo.numerics.threads import Progress

VALUES = 1 << 24  # of the problems that are trained side by side
SCORES = 1 << 26  # of partial codes, held at once
_TOLERANCE = 1e-4  # of each stage's k-means


def train_residual(
    points: Tensor,
    weights: Tensor | None,
    k: int,
    stages: int,
    seed: int,
    beam: int,
    refit: bool,
    iterations: int,
    progress: Progress | None,
    kernels: Kernels | None = None,
) -> Tensor:
    """Codebooks (batch, stages, k, d) for points (batch, d, n), on the points' device."""
    batch, d, n = points.shape
    kernels = kernels or kernels_for(points.device, d)
    codebooks = torch.empty((batch, stages, k, d), device=points.device)
    group = max(1, VALUES // (n * d))
    done, total = 0, -(-batch // group) * stages
    for first in range(0, batch, group):
        part = slice(first, first + group)
        x = points[part].float()
        w = None if weights is None else weights[part]
        residuals, group_books = x, codebooks[part]
        for stage in range(stages):
            group_books[:, stage] = train_torch(
                residuals, k, w, seed + first + stage, iterations, _TOLERANCE, kernels=kernels
            )
            books = group_books[:, : stage + 1]
            codes = encode_residual(x, books, beam, kernels)
            for _ in range(ROUNDS if refit and stage > 0 else 0):
                mass = None if w is None else mass_of(w)
                books.copy_(refit_codebooks(x, mass, codes, books, kernels))
                codes = encode_residual(x, books, beam, kernels)
            residuals = x - _decoded(codes, books)
            done += 1
            if progress is not None:
                progress(done, total)
    return codebooks


def encode_residual(
    points: Tensor, codebooks: Tensor, beam: int, kernels: Kernels | None = None
) -> Tensor:
    """Codes (batch, stages, n) of points (batch, d, n), found by a beam of partial codes."""
    batch, d, n = points.shape
    stages, k = codebooks.shape[1:3]
    kernels = kernels or kernels_for(points.device, d)
    codes = torch.empty((batch, stages, n), dtype=code_dtype(k), device=points.device)
    width = max(1, min(n, SCORES // (beam * k)))
    group = max(1, SCORES // (beam * k * width))
    for first in range(0, batch, group):
        part = slice(first, first + group)
        for start in range(0, n, width):
            some = points[part, :, start : start + width].float()
            some_codes = _encode(some, codebooks[part], beam, kernels)
            codes[part, :, start : start + width] = some_codes.to(codes.dtype)
    return codes


def _encode(points: Tensor, codebooks: Tensor, beam: int, kernels: Kernels) -> Tensor:
    """Codes (batch, stages, n), int64."""
    batch, d, n = points.shape
    stages, k = codebooks.shape[1:3]
    residuals = points.transpose(1, 2)[:, :, None]  # (batch, n, entries, d)
    paths = torch.empty((batch, n, 1, 0), dtype=torch.int64, device=points.device)
    for stage in range(stages - 1):
        book = codebooks[:, stage]
        halves = book.square().sum(2)[:, None, None] / 2
        errors = halves + residuals.square().sum(3, keepdim=True) / 2
        errors = errors - (residuals.flatten(1, 2) @ book.transpose(1, 2)).view_as(errors)
        best = errors.flatten(2).topk(min(beam, errors.shape[2] * k), 2, largest=False).indices
        entry, code = best // k, best % k
        residuals = _pick(residuals, entry) - _rows(book, code)
        paths = torch.cat([_pick(paths, entry), code[..., None]], 3)
    # Only the best code of the last stage counts.
    entries = residuals.shape[2]
    flat = ScaledPoints(
        residuals.flatten(1, 2).transpose(1, 2),
        residuals.new_zeros(batch, d),
        residuals.new_ones(batch),
    )
    code, costs = kernels.nearest(flat, codebooks[:, -1].contiguous(), True)
    best = first_smallest(costs.view(batch, n, entries))[..., None]
    last = code.view(batch, n, entries).gather(2, best)
    return torch.cat([_pick(paths, best)[:, :, 0], last.long()], 2).transpose(1, 2)


def refit_codebooks(
    x: Tensor, mass: Tensor | None, codes: Tensor, codebooks: Tensor, kernels: Kernels
) -> Tensor:
    """`refit.refit_codebooks` for each problem of a batch.

    Args:
        x: points (batch, d, n), float32.
        mass: (batch, n), float32, at most 1; None for 1 everywhere.
        codes: (batch, stages, n), uint8 or int32.
        codebooks: (batch, stages, k, d), where the iterations start.
        kernels: the device's kernels.

    Returns:
        (batch, stages, k, d), float32.
    """
    stages, k = codebooks.shape[1:3]
    codes_of_stages = [codes[:, t].contiguous() for t in range(stages)]

    def sums_by_code(values: Tensor) -> tuple[Tensor, Tensor]:
        scaled = around_zero(values)
        parts = [kernels.add_up(scaled, mass, stage, k, ALL) for stage in codes_of_stages]
        sums = torch.stack([part[0] for part in parts], 1)
        masses = torch.stack([part[1] for part in parts], 1)
        return sums / scaled.scale[:, None, None, None], masses

    gradient, masses = sums_by_code(x - _decoded(codes, codebooks))
    solution = codebooks.to(gradient.dtype)
    inverse = torch.where(masses > 0, 1.0 / masses.clamp(min=1e-30), 0.0)[..., None]
    direction = step = inverse * gradient
    norm = _inner(gradient, step)
    converged = CONVERGED * norm
    running = torch.ones_like(norm, dtype=torch.bool)
    for _ in range(STEPS):
        product = sums_by_code(_decoded(codes, direction.float()))[0]
        curvature = _inner(direction, product)
        running &= (norm > converged) & (curvature > CONVERGED * norm)
        length = torch.where(running, norm / torch.where(running, curvature, 1.0), 0.0)
        solution = solution + length * direction
        gradient = gradient - length * product
        step = inverse * gradient
        previous, norm = norm, _inner(gradient, step)
        direction = step + norm / torch.where(running, previous, 1.0) * direction
    return solution.float()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (batch, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True)


def _decoded(codes: Tensor, codebooks: Tensor) -> Tensor:
    """The decoded points (batch, d, n)."""
    total = _rows(codebooks[:, 0], codes[:, 0].long())
    for stage in range(1, codes.shape[1]):
        total = total + _rows(codebooks[:, stage], codes[:, stage].long())
    return total.transpose(1, 2)


def _rows(book: Tensor, codes: Tensor) -> Tensor:
    """The rows (batch, ..., d) of a book (batch, k, d) at codes (batch, ...)."""
    index = codes.flatten(1)[..., None].expand(-1, -1, book.shape[2])
    return book.gather(1, index).view(*codes.shape, -1)


def _pick(entries: Tensor, which: Tensor) -> Tensor:
    """entries (batch, n, e, c) at which (batch, n, f): (batch, n, f, c)."""
    return entries.gather(2, which[..., None].expand(-1, -1, -1, entries.shape[3]))
