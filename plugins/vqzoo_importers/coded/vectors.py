"""Codes of vectors, by where their values stand in a table."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqzoo.plugin import Floats, Indices
from vqzoo.plugin.limits import MAX_CARDINALITY

Array = NDArray[Any]


def vector_parts(
    index: Array, table: Array, width: int, tail: int | None
) -> dict[str, Indices | Floats] | None:
    """The parts of a code of rq, by rows of vectors that are added up.

    Args:
        index: (stages, points, n), where each value stands in the table.
        table: (entries,), the vectors of all codebooks.
        width: of a vector.
        tail: where those of the last, shorter block begin; None without such a block.

    Returns:
        "codes" (blocks, stages, points) and "codebook" (1 or blocks, stages, k, d), those of the
        last block with the suffix "_tail"; None if the values are no such vectors.
    """
    n = index.shape[2]
    whole, end = n - n % width, len(table) if tail is None else tail
    if (whole < n) != (tail is not None):
        return None
    pieces = {"": (index[..., :whole], table[:end], width)}
    if tail is not None:
        pieces["_tail"] = (index[..., whole:] - end, table[end:], n - whole)
    parts: dict[str, Indices | Floats] = {}
    for suffix, (places, entries, d) in pieces.items():
        vectors = places.reshape(*places.shape[:2], -1, d)
        first = vectors[..., 0]
        if (
            len(entries) % d
            or (first % d).any()
            or (vectors - first[..., None] != np.arange(d)).any()
        ):
            return None
        found = _by_books((first // d).transpose(2, 0, 1), entries.reshape(-1, d))
        if found is None:
            return None
        codes, books = found
        parts[f"codes{suffix}"] = Indices(torch.from_numpy(codes), books.shape[2])
        parts[f"codebook{suffix}"] = exact_floats(books)
    return parts


def _by_books(codes: Array, entries: Array) -> tuple[Array, Array] | None:
    """Codes (blocks, stages, points) of entries (count, d) as codes of codebooks, of each block if
    possible, and the codebooks (1 or blocks, stages, k, d)."""
    blocks, stages, _ = codes.shape
    for books in (blocks, 1):
        k, rest = divmod(len(entries), books * stages)
        starts = np.arange(books * stages).reshape(books, stages, 1) * k
        local = np.ascontiguousarray(codes - starts)
        if not rest and codes.size and local.min() >= 0 and local.max() < k <= MAX_CARDINALITY:
            return local, entries.reshape(books, stages, k, -1)
    return None


def exact_floats(values: Array) -> Floats:
    """Values in float16 or bfloat16 where one of them holds each value, else in float32."""
    single = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    halves = (single.to(dtype) for dtype in (torch.float16, torch.bfloat16))
    return Floats(next((half for half in halves if torch.equal(half.float(), single)), single))
