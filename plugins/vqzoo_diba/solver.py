"""DiBA-Greedy: a matrix as a product of diagonal and binary factors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqzoo.numerics.arrays import peak_exponent
from vqzoo.numerics.threads import Progress, one_torch_thread
from vqzoo_diba.diagonals import core_correction, row_factors
from vqzoo_diba.flips import flip_bits
from vqzoo_diba.products import product

_GROUP = 128  # columns of B1 that are fitted together to the residual of those before them
_SMALL = 1 << 13  # weights of all starts together
_STARTS = 8  # at most
_GROUP_ROUNDS = 5
_POWERS = 20  # power iterations for the signs of the leading singular pair
_TINY = 1e-30


@dataclass(frozen=True)
class DiagonalBinary:
    """diag(d1)·B1·diag(d2)·B2·diag(d3).

    Attributes:
        d1: float32, (m,).
        b1: uint8 of 0 and 1, (m, k).
        d2: float32, (k,).
        b2: uint8 of 0 and 1, (k, n).
        d3: float32, (n,).
    """

    d1: Tensor
    b1: Tensor
    d2: Tensor
    b2: Tensor
    d3: Tensor

    def left(self, components: slice) -> Tensor:
        """These columns of P = D1·B1: float32, (m, components)."""
        return self.d1[:, None] * self.b1[:, components]

    def right(self, components: slice) -> Tensor:
        """These rows of Q = B2·D3: float32, (components, n)."""
        return self.b2[components] * self.d3

    def matrix(self) -> Tensor:
        """The product: float32, (m, n)."""
        return product(self.left(_ALL) * self.d2, self.right(_ALL))

    def transposed(self) -> "DiagonalBinary":
        """The factors of the transposed matrix."""
        return DiagonalBinary(
            self.d3, self.b2.T.contiguous(), self.d2, self.b1.T.contiguous(), self.d1
        )


@dataclass(frozen=True)
class DibaStep:
    """The state of the solver after a half step.

    Attributes:
        name: "start", "flip B1", "fit D1", "flip B2", "fit D3" or "fit D2".
        factors: the factors after it.
        error: ‖A − Â‖_F²; never more than after the half step before.
    """

    name: str
    factors: DiagonalBinary
    error: float


@dataclass(frozen=True)
class _Fit:
    """Factors, their residual A − Â and its squared norm."""

    factors: DiagonalBinary
    residual: Tensor
    error: float

    def transposed(self) -> "_Fit":
        return _Fit(self.factors.transposed(), self.residual.T.contiguous(), self.error)


_ALL = slice(None)


def solve_diba(
    matrix: Tensor,
    k: int,
    *,
    seed: int = 0,
    iterations: int = 20,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
    report: Callable[[DibaStep], None] | None = None,
) -> DiagonalBinary:
    """Factor A ≈ D1·B1·D2·B2·D3 by DiBA-Greedy (Ono 2026, arXiv 2605.05994).

    The start: D1 and D3 with the root mean squares of rows and columns and the signs of the leading
    singular pair, and groups of 128 random components, each alternately fitted to the residual of
    the groups before it. In a small matrix, a single badly fitted row can dominate the error to the
    end: up to 4,096 weights, the best of 2 to 8 such starts is taken. Then rounds over all
    components: one-bit flips of B1, D1 by least squares, the mirror image of both, D2 by least
    squares. A half step that does not lower the error is undone.

    Args:
        matrix: float32, (m, n), finite.
        k: inner dimension, at least 1.
        seed: seed of the random bits; it determines the factors, with any number of threads.
        iterations: maximum of rounds over all components.
        tolerance: stop when a round lowers the error by less than this fraction of it.
        progress: called as progress(done, total) from this thread.
        report: called after the start and after every half step of the rounds.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    exponent = peak_exponent(matrix)
    scaled = (matrix.detach().cpu().double() * 2.0**-exponent).float().contiguous()
    starts = min(_STARTS, max(1, _SMALL // matrix.numel()))
    groups = [slice(start, min(start + _GROUP, k)) for start in range(0, k, _GROUP)]
    flips = _FlipCount(2 * k * (starts * _GROUP_ROUNDS + iterations), progress)
    generator = torch.Generator().manual_seed(seed)

    def reported(name: str, fit: _Fit) -> _Fit:
        if report is not None:
            report(DibaStep(name, _unscaled(fit.factors, exponent), fit.error * 4.0**exponent))
        return fit

    with one_torch_thread():
        candidates = (_fit_groups(scaled, k, groups, generator, flips) for _ in range(starts))
        fit = reported("start", min(candidates, key=lambda candidate: candidate.error))
        transposed = scaled.T.contiguous()
        for _ in range(iterations):
            before = fit.error
            fit = reported("flip B1", _flip(fit, _ALL, flips))
            fit = reported("fit D1", _fit_rows(fit, scaled))
            fit = reported("flip B2", _flip(fit.transposed(), _ALL, flips).transposed())
            fit = reported("fit D3", _fit_rows(fit.transposed(), transposed).transposed())
            fit = reported("fit D2", _fit_core(fit, scaled, _ALL))
            if before - fit.error <= tolerance * before:
                break
    flips.finish()
    return _unscaled(fit.factors, exponent)


class _FlipCount:
    """Converts the progress of passes of flips to steps of the whole work.

    A pass over some columns of B counts one step a column.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def pass_progress(self, columns: int) -> Progress:
        """The progress callback of one pass."""
        start = self._done
        self._done += columns

        def progress(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(start + columns * done // total, self._total)

        return progress

    def finish(self) -> None:
        """Report the end, even if not all rounds were needed."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def _fit_groups(
    matrix: Tensor, k: int, groups: list[slice], generator: torch.Generator, flips: _FlipCount
) -> _Fit:
    """One start: each group is alternately fitted to the residual of the groups before it."""
    fit = _start(matrix, k, generator)
    for group in groups:
        fit = _fit_core(fit, matrix, group)
        for _ in range(_GROUP_ROUNDS):
            fit = _flip(fit, group, flips)
            fit = _flip(fit.transposed(), group, flips).transposed()
            fit = _fit_core(fit, matrix, group)
    return fit


def _start(matrix: Tensor, k: int, generator: torch.Generator) -> _Fit:
    """Random bits, D2 = 0, and D1 and D3 with the sizes and leading signs of rows and columns.

    Least squares seldom flips the sign of a row, and a component of zeros and ones has a single
    sign: without the leading signs, it takes four components to replace one of rank one.
    """
    m, n = matrix.shape
    b1 = torch.randint(0, 2, (m, k), generator=generator, dtype=torch.uint8)
    b2 = torch.randint(0, 2, (k, n), generator=generator, dtype=torch.uint8)
    squares = matrix.double().square()
    sizes = (_over_mean(squares.mean(dim=dim).sqrt()) for dim in (1, 0))
    signs = _leading_signs(matrix, torch.randn(n, generator=generator))
    d1, d3 = (torch.copysign(size, sign) for size, sign in zip(sizes, signs, strict=True))
    factors = DiagonalBinary(d1, b1, torch.zeros(k), b2, d3)
    return _measured(factors, matrix.clone())


def _leading_signs(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors with about the signs of the leading singular pair, by power iteration."""
    for _ in range(_POWERS):
        left = matrix @ (right / right.norm().clamp(min=_TINY))
        right = matrix.T @ (left / left.norm().clamp(min=_TINY))
    return left, right


def _over_mean(sizes: Tensor) -> Tensor:
    mean = sizes.mean()
    return (sizes / mean if mean > 0 else sizes).float()


def _flip(fit: _Fit, components: slice, flips: _FlipCount) -> _Fit:
    """Flip bits in some columns of B1."""
    factors, residual = fit.factors, fit.residual.clone()
    bits = factors.b1[:, components].clone(memory_format=torch.contiguous_format)
    rows = factors.d2[components, None] * factors.right(components)
    b1 = factors.b1.clone()
    flip_bits(residual, factors.d1, bits, rows, flips.pass_progress(bits.shape[1]))
    b1[:, components] = bits
    return _better(fit, _measured(replace(factors, b1=b1), residual))


def _fit_rows(fit: _Fit, matrix: Tensor) -> _Fit:
    """Fit D1 by least squares.

    The product is recomputed: derived from the residual, a row of zeros would hold rounding errors.
    """
    approximation = fit.factors.matrix()
    scales = row_factors(matrix, approximation)
    factors = replace(fit.factors, d1=fit.factors.d1 * scales)
    return _better(fit, _measured(factors, matrix - scales[:, None] * approximation))


def _fit_core(fit: _Fit, matrix: Tensor, components: slice) -> _Fit:
    """Fit some of D2 by least squares; for all of D2 the residual is recomputed."""
    factors = fit.factors
    left, right = factors.left(components), factors.right(components)
    change = core_correction(fit.residual, left, right)
    d2 = factors.d2.clone()
    d2[components] += change
    changed = replace(factors, d2=d2)
    if components == _ALL:
        residual = matrix - changed.matrix()
    else:
        residual = fit.residual - product(left * change, right)
    return _better(fit, _measured(changed, residual))


def _measured(factors: DiagonalBinary, residual: Tensor) -> _Fit:
    return _Fit(factors, residual, float(residual.double().square().sum()))


def _better(old: _Fit, new: _Fit) -> _Fit:
    return new if new.error < old.error else old


def _unscaled(factors: DiagonalBinary, exponent: int) -> DiagonalBinary:
    """The factors of the matrix times 2^exponent, which is divided between D1 and D3."""
    half = exponent // 2
    return replace(factors, d1=factors.d1 * 2.0**half, d3=factors.d3 * 2.0 ** (exponent - half))
