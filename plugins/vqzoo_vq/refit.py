"""Codebooks fitted to the codes that error feedback has chosen."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vqzoo.numerics.decoding.lookup import look_up
from vqzoo.numerics.feedback.refit import refit_codebooks
from vqzoo.plugin import Floats, SecondOrder
from vqzoo.plugin.limits import StorageDtype
from vqzoo_vq.blocks import Axis


def refitted(
    clusters: Iterable[tuple[str, Tensor, Floats]],
    weight: Tensor,
    axis: Axis,
    sizes: Tensor | None,
    dtype: StorageDtype,
    second_order: SecondOrder,
) -> Iterator[tuple[str, Tensor, Floats]]:
    """The same codes with the codebooks of least loss for them, or with theirs.

    Args:
        clusters: suffix, codes (blocks, points) and codebooks (books, k, d) of the whole blocks and
            of the tail; with stages, codes (blocks, stages, points) and codebooks
            (books, stages, k, d).
        weight: (m, n).
        axis: that is cut.
        sizes: (m, 1), by which rows were divided, or None.
        dtype: of stored codebooks.
        second_order: of the layer.
    """
    suffixes, codes, stored = zip(*clusters, strict=True)
    staged = [part if part.dim() == 3 else part[:, None] for part in codes]

    def decode(books: Sequence[Tensor], rows: Tensor | None) -> Tensor:
        by_columns = axis == "columns"
        parts = [
            look_up(
                some if rows is None or not by_columns else some[:, :, rows],
                book if book.dim() == 4 else book[:, None],
            )
            for some, book in zip(staged, books, strict=True)
        ]
        matrix = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if not by_columns:
            matrix = matrix.T if rows is None else matrix.T[rows]
        if sizes is None:
            return matrix
        return matrix * (sizes if rows is None else sizes[rows])

    books = refit_codebooks(
        weight,
        [part.values for part in stored],
        decode,
        second_order.hessian,
        second_order.row_weights,
        lambda book: Floats.of(book, dtype).values,
    )
    for suffix, some_codes, book in zip(suffixes, codes, books, strict=True):
        yield suffix, some_codes, Floats.of(book, dtype)
