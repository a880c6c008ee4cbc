"""Classes of rows and of columns whose codes are alike.

Rows (columns) differ in the spread of their codes, and hardly in anything else. A code is coded
with the frequencies of the cell (class of its row, class of its column). Classes begin as equal
shares of the rows by mean magnitude; then each row goes to the class with which its codes take the
fewest bits, as k-means clusters points by Kullback and Leibler's divergence.
"""

import math
from dataclasses import dataclass

import numpy as np

from vqzoo.numerics.arrays import Codes, Doubles, Ints, NarrowCodes
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.threads import run_tasks

MAX_CLASSES = 12
MAX_SYMBOLS = 256  # beyond it, cells would have too few codes of each symbol
_NUMBERS = (1, 2, 3, 4, 6, 8, 12)  # of classes
_MEMBERS = 8  # rows that a class should have at least, on average
_TABLE_BITS = 2.5  # what a symbol takes in the table of a cell, about
_ROUNDS = 2
_ROWS = 64  # a task
_MAX_COUNTS = 1 << 24  # histograms of all rows or columns hold at most so many counts: 128 MiB

PRIOR = 4.0  # codes distributed as in the whole matrix that are added to those of each cell


@dataclass(frozen=True)
class Classes:
    """A class for each row and column.

    Attributes:
        rows: (m,) int32.
        columns: (n,) int32.
        counts: (row classes, column classes, states, symbols) int64: how often each symbol occurs
            in each cell.
    """

    rows: Codes
    columns: Codes
    counts: Ints

    @property
    def bits(self) -> float:
        """What the codes take, tables and classes included, about."""
        return _cost(self.counts, len(self.rows), len(self.columns))


@compiled()
def _count(codes, states, classes, counts):  # type: ignore[no-untyped-def]
    """counts[i, class of column, state, symbol] of some rows."""
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            counts[i, classes[j], states[i, j], codes[i, j]] += 1


def classify(
    codes: Codes | NarrowCodes, states: NarrowCodes, symbols: int, limit: int = MAX_CLASSES
) -> Classes:
    """Find the classes with which codes take the fewest bits, tables included.

    Args:
        codes: (m, n), 0 to symbols - 1; m, n >= 1.
        states: (m, n) 0 or 1: codes of different states have separate tables in each cell.
        symbols: number of symbols.
        limit: classes of rows, and of columns, at most.
    """
    search = _Search(codes, states, symbols)
    best = search.at(0, 0)
    if symbols > MAX_SYMBOLS or limit == 1:
        return best
    place = (0, 0)
    while True:
        a, b = place
        around = [(a + 1, b), (a, b + 1), (a + 1, b + 1)]
        finer = [(search.at(*near), near) for near in around if search.allows(*near, limit)]
        if not finer:
            return best
        candidate, near = min(finer, key=lambda pair: pair[0].bits)
        if candidate.bits >= best.bits:
            return best
        best, place = candidate, near


class _Search:
    """Clusterings of one matrix into various numbers of classes."""

    def __init__(self, codes: Codes | NarrowCodes, states: NarrowCodes, symbols: int) -> None:
        self.codes, self.states, self.symbols = codes, states, symbols
        self.kinds = int(states.max()) + 1
        total = np.bincount(codes.ravel(), minlength=symbols)
        distance = np.abs(np.arange(symbols) - int(total.argmax())).astype(np.float64)
        magnitudes = distance[codes]
        self.spread = magnitudes.mean(1), magnitudes.mean(0)
        self.seen: dict[tuple[int, int], Classes] = {}

    def allows(self, a: int, b: int, limit: int) -> bool:
        """Whether there may be so many classes of rows and columns (places in the list)."""
        numbers = [number for number in _NUMBERS if number <= limit]
        if max(a, b) >= len(numbers):
            return False
        rows, columns = self.codes.shape
        counts = self.kinds * self.symbols * max(rows * numbers[b], columns * numbers[a])
        return (
            (a == 0 or numbers[a] * _MEMBERS <= rows)
            and (b == 0 or numbers[b] * _MEMBERS <= columns)
            and counts <= _MAX_COUNTS
        )

    def at(self, a: int, b: int) -> Classes:
        """The clustering for these numbers of classes."""
        if (a, b) not in self.seen:
            self.seen[a, b] = self._cluster(_NUMBERS[a], _NUMBERS[b])
        return self.seen[a, b]

    def _cluster(self, row_classes: int, column_classes: int) -> Classes:
        rows = _shares(self.spread[0], row_classes)
        columns = _shares(self.spread[1], column_classes)
        by_row = self._histograms(columns, column_classes, transposed=False)
        best = Classes(rows, columns, _gather(by_row, rows, row_classes))
        if row_classes == column_classes == 1:
            return best
        for _ in range(_ROUNDS):
            rows = _nearest(by_row, rows, row_classes)
            by_column = self._histograms(rows, row_classes, transposed=True)
            columns = _nearest(by_column, columns, column_classes)
            by_row = self._histograms(columns, column_classes, transposed=False)
            moved = Classes(rows, columns, _gather(by_row, rows, row_classes))
            if moved.bits >= best.bits:
                break
            best = moved
        return best

    def _histograms(self, classes: Codes, number: int, *, transposed: bool) -> Ints:
        """How often each symbol occurs in each row, by class of the column: (m, classes, states,
        symbols) int64; `transposed`: in each column, by class of the row."""
        codes = self.codes.T if transposed else self.codes
        states = self.states.T if transposed else self.states
        counts = np.zeros((len(codes), number, self.kinds, self.symbols), np.int64)

        def work(start: int) -> None:
            part = slice(start, start + _ROWS)
            _count(codes[part], states[part], classes, counts[part])

        run_tasks(work, range(0, len(codes), _ROWS))
        return counts


def _shares(spread: Doubles, number: int) -> Codes:
    """Equal shares by spread."""
    ranks = np.empty(len(spread), np.int64)
    ranks[np.argsort(spread, kind="stable")] = np.arange(len(spread))
    return (ranks * number // len(spread)).astype(np.int32)


def _gather(histograms: Ints, classes: Codes, number: int) -> Ints:
    """Sums of the histograms of each class."""
    return np.stack([histograms[classes == one].sum(0) for one in range(number)])


def _nearest(histograms: Ints, classes: Codes, number: int) -> Codes:
    """The class with which each row's codes take the fewest bits."""
    if number == 1:
        return classes
    counts = _gather(histograms, classes, number)
    prices = cell_bits(counts).reshape(number, -1)
    members = np.bincount(classes, minlength=number) + 0.5
    to_name = np.log2(members.sum() / members)
    bits = histograms.reshape(len(classes), -1).astype(np.float64) @ prices.T + to_name
    result: Codes = bits.argmin(1).astype(np.int32)
    return result


def cell_bits(counts: Ints) -> Doubles:
    """-log2 of the probability of each symbol in each cell, of the shape of `counts`.

    Each cell counts in `PRIOR` codes of the whole matrix, smoothed by half a code a symbol.
    """
    overall = counts.sum(axis=(0, 1)) + 0.05
    smoothed = counts + PRIOR * overall / overall.sum(-1, keepdims=True)
    result: Doubles = np.log2(smoothed.sum(-1, keepdims=True) / smoothed)
    return result


def _cost(counts: Ints, m: int, n: int) -> float:
    """Bits of codes, tables and classes."""
    used = counts[counts > 0].astype(np.float64)
    totals = counts.sum(-1)
    totals = totals[totals > 0].astype(np.float64)
    codes = float((totals * np.log2(totals)).sum() - (used * np.log2(used)).sum())
    sides = m * math.log2(counts.shape[0]) + n * math.log2(counts.shape[1])
    return codes + _TABLE_BITS * len(used) + sides
