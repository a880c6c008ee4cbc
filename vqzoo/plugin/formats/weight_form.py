"""What a matrix is, in the few forms that runtimes decode themselves."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LookUp:
    """Entries of tables, times scales.

    Vectors of d values lie along an axis of the matrix, which divides its length. Codes are in the
    places of the vectors: (m, n / d) along columns, (m / d, n) along rows.

    Attributes:
        codes: integers below k.
        table: (books, k, d) float32: one table, or one for each of the n / d (m / d) places.
        by_rows: whether vectors lie along rows, across outputs.
        scale: (m or 1, groups) float32, each for `group` columns; None without scales.
        group: columns that share a scale; the last group may have fewer.
    """

    codes: Tensor
    table: Tensor
    by_rows: bool = False
    scale: Tensor | None = None
    group: int = 0


@dataclass(frozen=True)
class TwoFactors:
    """The product of `left` (m, r) and `right` (r, n), float32."""

    left: Tensor
    right: Tensor


WeightForm = LookUp | TwoFactors
