"""Average precision and precision at k of rankings by cosine similarity.

Similarities are exact integers, so a ranking depends on the vectors alone: not on the number of
threads, the size of blocks or the order of the items. Items of equal similarity are tied, and the
measures do not depend on an order among them:

* average precision takes for each relevant item the precision among all items that are at least as
  similar (as scikit-learn's `average_precision_score`);
* precision at k is the mean over all orders of the tied items (McSherry and Najork 2008, ECIR,
  "Computing information retrieval performance measures efficiently in the presence of tied
  scores").
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STEPS = 2.0**25  # unit vectors are rounded to multiples of 1/_STEPS: dot products stay exact
BLOCK = 2**21  # numbers per block: 16 MiB in float64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rankings:
    """The quality of each query's ranking.

    Attributes:
        average_precision: float64 in [0, 1], one per query.
        precision: k -> precision at k, float64 in [0, 1], one per query; without the k for which
            there are fewer than k other items.
    """

    average_precision: Tensor
    precision: dict[int, Tensor]


def unit_integers(vectors: Tensor, block: int = BLOCK) -> Tensor:
    """Scale rows to the length 2^25 and round them to integers.

    Every partial sum of a dot product of such rows is below 2^51 (Cauchy and Schwarz), so the
    product is exact in any order of summation. Rows that are zero or hold a value that is not
    finite become zero: as similar to everything as orthogonal vectors.

    Args:
        vectors: float, (n, d).
        block: convert this many numbers at a time (at least one row).

    Returns:
        float64, (n, d), on the device of `vectors`.
    """
    integers = torch.empty(vectors.shape, dtype=torch.float64, device=vectors.device)
    rows = max(1, block // max(1, vectors.shape[1]))
    for target, part in zip(integers.split(rows), vectors.split(rows), strict=True):
        target.copy_(_unit_integers(part))
    return integers


def _unit_integers(vectors: Tensor) -> Tensor:
    wide = vectors.double()
    wide = torch.where(wide.isfinite().all(1, keepdim=True), wide, 0.0)
    largest = wide.abs().amax(1, keepdim=True)
    wide = wide / torch.where(largest > 0, largest, 1.0)  # squares can no longer overflow
    length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return (wide * (_STEPS / torch.where(length > 0, length, 1.0))).round_()


def rank_others(
    queries: Tensor,
    database: Tensor,
    labels: Tensor,
    *,
    cutoffs: tuple[int, ...] = (1, 10),
    block: int = BLOCK,
    progress: Progress | None = None,
) -> Rankings:
    """Rank all other items of the database for each query; items of its label are relevant.

    Queries whose label no other item shares have no relevant item and are left out. Memory: the
    vectors in float64 (held once if the queries are the database), and about 150 MiB.

    Args:
        queries: float, (n, d); row i is item i as a query. Move them to the CPU first if their
            device has no float64.
        database: float, (n, d), on the same device; row i is item i in the database.
        labels: int64, (n,), on the CPU.
        cutoffs: the k of the precisions at k.
        block: compute this many similarities at a time (at least one query's); the result does not
            depend on it.
        progress: called with the number of queries done and in total.

    Raises:
        ValueError: the shapes do not match.
    """
    if queries.shape != database.shape or labels.shape != queries.shape[:1]:
        raise ValueError(f"shapes {queries.shape}, {database.shape}, {labels.shape} do not match")
    kept = tuple(k for k in cutoffs if k < len(labels))
    items = unit_integers(database, block)
    vectors = items if queries is database else unit_integers(queries, block)
    blocks = list(_blocks(vectors, items, labels, kept, block, progress))
    return Rankings(
        average_precision=_joined(average for average, _ in blocks),
        precision={k: _joined(precision[k] for _, precision in blocks) for k in kept},
    )


def _joined(arrays: Iterable[NDArray[np.float64]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0), *arrays]))


def _blocks(
    queries: Tensor,
    database: Tensor,
    labels: Tensor,
    cutoffs: tuple[int, ...],
    block: int,
    progress: Progress | None,
) -> Iterator[tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]]:
    """Average precisions and precisions at k from integer vectors, for one block of queries at a
    time."""
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    answerable = (counts[classes] > 1).nonzero().flatten()
    size = max(1, block // max(1, len(labels)))
    for start in range(0, len(answerable), size):
        rows = answerable[start : start + size]
        similarities = (queries[rows.to(queries.device)] @ database.T).cpu().numpy()
        relevant = (classes[rows][:, None] == classes[None, :]).numpy()
        # The lowest bit carries relevance through the sort; the query itself sorts to column 0.
        keys = 2 * similarities + relevant
        keys[np.arange(len(rows)), rows.numpy()] = -np.inf
        keys.sort(axis=1)
        yield _precisions(keys[:, 1:].astype(np.int64), cutoffs)
        if progress is not None:
            progress(min(start + size, len(answerable)), len(answerable))


def _precisions(
    keys: NDArray[np.int64], cutoffs: tuple[int, ...]
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]:
    """Average precision and precisions at k of rows of 2 * similarity + relevance, ascending."""
    count, items = keys.shape
    similarities, relevant = keys >> 1, keys & 1
    # before[:, i]: number of relevant items among the i least similar ones.
    before = np.zeros((count, items + 1), np.int64)
    np.cumsum(relevant, axis=1, out=before[:, 1:])
    # first[:, i]: column of the first item that is tied with item i.
    first = np.tile(np.arange(items), (count, 1))
    first[:, 1:][similarities[:, 1:] == similarities[:, :-1]] = 0
    np.maximum.accumulate(first, axis=1, out=first)

    rows, columns = np.nonzero(relevant)
    tied = first[rows, columns]
    as_similar = before[rows, -1] - before[rows, tied]  # relevant items at least as similar
    sums = np.bincount(rows, weights=as_similar / (items - tied), minlength=count)
    average = sums / before[:, -1]

    every = np.arange(count)
    precision = {}
    for k in cutoffs:
        border = similarities[:, items - k]
        above = (similarities > border[:, None]).sum(1)
        begin, end = first[:, items - k], items - above
        certain = before[:, -1] - before[every, end]  # relevant items above the border
        shared = (before[every, end] - before[every, begin]) * ((k - above) / (end - begin))
        precision[k] = (certain + shared) / k
    return average, precision
