"""DiBA-Greedy: a matrix as a product of diagonal and binary factors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqzoo.numerics.arrays import peak_exponent
from vqzoo.numerics.threads import Progress
from vqzoo_diba.diagonals import core_correction, row_factors
from vqzoo_diba.flips import flip_bits
from vqzoo_diba.products import one_torch_thread, product

_GROUP = 128  # columns of B1 fitted to what those before them leave
_SMALL = 1 << 13  # weights that all starts take together
_STARTS = 8  # at most
_GROUP_ROUNDS = 5
_POWERS = 20  # of the matrix, for its leading signs
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

    def left(self, some: slice) -> Tensor:
        """P = D1·B1, some of its columns: float32, (m, k)."""
        return self.d1[:, None] * self.b1[:, some]

    def right(self, some: slice) -> Tensor:
        """Q = B2·D3, some of its rows: float32, (k, n)."""
        return self.b2[some] * self.d3

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
    """Where the solver stands after a half step.

    Attributes:
        name: "start", "flip B1", "fit D1", "flip B2", "fit D3" or "fit D2".
        factors: what it has.
        error: ‖A − Â‖_F²; never more than after the half step before.
    """

    name: str
    factors: DiagonalBinary
    error: float


@dataclass(frozen=True)
class _Fit:
    """Factors, and what they leave of the matrix: A − Â and its squared norm."""

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
    """A ≈ D1·B1·D2·B2·D3 by DiBA-Greedy (Ono 2026, arXiv 2605.05994).

    Starts from D1 and D3 with the rows' and columns' root mean squares and the signs of the leading
    singular pair, and from groups of 128 random components, each group alternated on what the
    groups before it leave. Of few weights, a row that a group left behind can dominate the error
    to the end: up to 4,096 weights, the best of 2 to 8 such starts is taken. Then rounds over all
    components: one-bit flips of B1, D1 by least squares, the mirror image of both, D2 by least
    squares. A half step that does not lower the error is undone.

    Args:
        matrix: float32, (m, n), finite.
        k: inner dimension, at least 1.
        seed: of the random bits; the same seed gives the same factors with any number of threads.
        iterations: rounds over all components, at most.
        tolerance: stop where a round lowers the error by less than this share of it.
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

    def take(name: str, better: _Fit) -> _Fit:
        if report is not None:
            report(
                DibaStep(name, _enlarged(better.factors, exponent), better.error * 4.0**exponent)
            )
        return better

    with one_torch_thread():
        tried = (_fit_groups(scaled, k, groups, generator, flips) for _ in range(starts))
        fit = take("start", min(tried, key=lambda one: one.error))
        transposed = scaled.T.contiguous()
        for _ in range(iterations):
            before = fit.error
            fit = take("flip B1", _flip(fit, _ALL, flips))
            fit = take("fit D1", _fit_rows(fit, scaled))
            fit = take("flip B2", _flip(fit.transposed(), _ALL, flips).transposed())
            fit = take("fit D3", _fit_rows(fit.transposed(), transposed).transposed())
            fit = take("fit D2", _fit_core(fit, scaled, _ALL))
            if before - fit.error <= tolerance * before:
                break
    flips.finish()
    return _enlarged(fit.factors, exponent)


class _FlipCount:
    """Turns the rows that passes of flips have done into steps of the whole work.

    A pass over some columns of B counts one step a column.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def passing(self, columns: int) -> Progress:
        """The progress of one pass."""
        start = self._done
        self._done += columns

        def passed(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(start + columns * done // total, self._total)

        return passed

    def finish(self) -> None:
        """The rounds that were not needed are done."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def _fit_groups(
    matrix: Tensor, k: int, groups: list[slice], generator: torch.Generator, flips: _FlipCount
) -> _Fit:
    """One start: each group alternated on what those before it leave."""
    fit = _start(matrix, k, generator)
    for group in groups:
        fit = _fit_core(fit, matrix, group)
        for _ in range(_GROUP_ROUNDS):
            fit = _flip(fit, group, flips)
            fit = _flip(fit.transposed(), group, flips).transposed()
            fit = _fit_core(fit, matrix, group)
    return fit


def _start(matrix: Tensor, k: int, generator: torch.Generator) -> _Fit:
    """Random bits, D2 = 0, and in D1 and D3 the rows' and columns' sizes and leading signs.

    Least squares seldom turns a row's sign, and components of zeros and ones have one sign each:
    without these, what rank one could do takes four of them.
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
    """Vectors with the signs of the first singular pair, nearly, by powers from a random one."""
    for _ in range(_POWERS):
        left = matrix @ (right / right.norm().clamp(min=_TINY))
        right = matrix.T @ (left / left.norm().clamp(min=_TINY))
    return left, right


def _over_mean(sizes: Tensor) -> Tensor:
    mean = sizes.mean()
    return (sizes / mean if mean > 0 else sizes).float()


def _flip(fit: _Fit, some: slice, flips: _FlipCount) -> _Fit:
    """Flips in some columns of B1."""
    factors, residual = fit.factors, fit.residual.clone()
    bits = factors.b1[:, some].clone(memory_format=torch.contiguous_format)
    rows = factors.d2[some, None] * factors.right(some)
    b1 = factors.b1.clone()
    flip_bits(residual, factors.d1, bits, rows, flips.passing(bits.shape[1]))
    b1[:, some] = bits
    return _better(fit, _measured(replace(factors, b1=b1), residual))


def _fit_rows(fit: _Fit, matrix: Tensor) -> _Fit:
    """D1 by least squares.

    The product is computed afresh: taken from the residual, a row of zeros would be rounding.
    """
    approximation = fit.factors.matrix()
    by = row_factors(matrix, approximation)
    factors = replace(fit.factors, d1=fit.factors.d1 * by)
    return _better(fit, _measured(factors, matrix - by[:, None] * approximation))


def _fit_core(fit: _Fit, matrix: Tensor, some: slice) -> _Fit:
    """Some of D2 by least squares; where it is all of D2 the residual is computed afresh."""
    factors = fit.factors
    left, right = factors.left(some), factors.right(some)
    change = core_correction(fit.residual, left, right)
    d2 = factors.d2.clone()
    d2[some] += change
    changed = replace(factors, d2=d2)
    residual = (
        matrix - changed.matrix() if some == _ALL else fit.residual - product(left * change, right)
    )
    return _better(fit, _measured(changed, residual))


def _measured(factors: DiagonalBinary, residual: Tensor) -> _Fit:
    return _Fit(factors, residual, float(residual.double().square().sum()))


def _better(old: _Fit, new: _Fit) -> _Fit:
    return new if new.error < old.error else old


def _enlarged(factors: DiagonalBinary, exponent: int) -> DiagonalBinary:
    """The factors of the matrix times 2^exponent, half of it in D1 and half in D3."""
    half = exponent // 2
    return replace(factors, d1=factors.d1 * 2.0**half, d3=factors.d3 * 2.0 ** (exponent - half))
