"""How well rankings by cosine similarity put the relevant items first.

Similarities are exact integers, so that a ranking depends on the vectors alone: not on the number
of threads, the size of blocks or the order of the items. Items of equal similarity are
tied, and no order among them is made up:

* average precision counts for each relevant item the precision among all items at least as similar
  (scikit-learn's `average_precision_score`);
* precision at k is its mean over all orders of the tied items (McSherry and Najork 2008,
  ECIR: measures in the presence of tied scores).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Unit vectors are rounded to this many steps a unit: products of two stay exact in float64.
_STEPS = 2.0**25
# Similarities looked at together: 16 MiB in float64.
_BLOCK = 2**21

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rankings:
    """What each query's ranking is worth, float64 in [0, 1], one a query.

    `precision` maps k to the precision among the first k; a k with fewer than k other items is
    not there.
    """

    average_precision: Tensor
    precision: dict[int, Tensor]


def unit_integers(vectors: Tensor) -> Tensor:
    """Rows scaled to the length 2^25 and rounded: integers in float64, on the vectors' device.

    Dot products of such rows are below 2^51 at every partial sum (Cauchy and Schwarz), so they are
    exact in any order. Rows that are zero, or not finite throughout, become zero: as similar to
    everything as orthogonal vectors.

    Args:
        vectors: float, n x d.
    """
    made = torch.empty(vectors.shape, dtype=torch.float64, device=vectors.device)
    rows = max(1, _BLOCK // max(1, vectors.shape[1]))
    for part, block in zip(made.split(rows), vectors.split(rows), strict=True):
        part.copy_(_unit_integers(block))
    return made


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
    progress: Progress | None = None,
) -> Rankings:
    """Rank for each query all items of the database but its own; those of its label are relevant.

    Queries that no other item shares its label with have no relevant item, and are left out.
    Memory: the vectors in float64 (queries that are the database are held once), and some 150 MiB.

    Args:
        queries: float, n x d; row i is the item i as a query. Where their device has no float64,
            bring them to the CPU first.
        database: float, n x d, on the same device; row i is the item i as it is searched for.
        labels: int64, n, on the CPU.
        cutoffs: the k of the precisions at k.
        progress: called with the queries done, and the queries in all.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if queries.shape != database.shape or labels.shape != queries.shape[:1]:
        raise ValueError(f"{queries.shape}, {database.shape} and {labels.shape} do not fit")
    kept = tuple(k for k in cutoffs if k < len(labels))
    searched = unit_integers(database)
    asked = searched if queries is database else unit_integers(queries)
    pairs = list(_blocks(asked, searched, labels, kept, progress))
    averages = [average for average, _ in pairs]
    return Rankings(
        average_precision=torch.from_numpy(np.concatenate([np.empty(0), *averages])),
        precision={
            k: torch.from_numpy(np.concatenate([np.empty(0), *(found[k] for _, found in pairs)]))
            for k in kept
        },
    )


def _blocks(
    queries: Tensor,
    database: Tensor,
    labels: Tensor,
    cutoffs: tuple[int, ...],
    progress: Progress | None,
) -> Iterator[tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]]:
    """Average precisions and precisions at k of vectors of integers, a block of queries at a
    time."""
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    wanted = (counts[classes] > 1).nonzero().flatten()
    size = max(1, _BLOCK // max(1, len(labels)))
    for start in range(0, len(wanted), size):
        rows = wanted[start : start + size]
        similarities = (queries[rows.to(queries.device)] @ database.T).cpu().numpy()
        relevant = (classes[rows][:, None] == classes[None, :]).numpy()
        # Relevance rides in the lowest bit through the sort; the query itself goes to column 0.
        keys = 2 * similarities + relevant
        keys[np.arange(len(rows)), rows.numpy()] = -np.inf
        keys.sort(axis=1)
        yield _worth(keys[:, 1:].astype(np.int64), cutoffs)
        if progress is not None:
            progress(min(start + size, len(wanted)), len(wanted))


def _worth(
    keys: NDArray[np.int64], cutoffs: tuple[int, ...]
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]:
    """Average precision and precisions at k of rows of 2 * similarity + relevance, ascending."""
    count, items = keys.shape
    similarities, relevant = keys >> 1, keys & 1
    # before[:, i]: relevant items among the i least similar ones.
    before = np.zeros((count, items + 1), np.int64)
    np.cumsum(relevant, axis=1, out=before[:, 1:])
    # first[:, i]: where the items begin that are tied with item i.
    first = np.tile(np.arange(items), (count, 1))
    first[:, 1:][similarities[:, 1:] == similarities[:, :-1]] = 0
    np.maximum.accumulate(first, axis=1, out=first)

    rows, columns = np.nonzero(relevant)
    tied = first[rows, columns]
    found = before[rows, -1] - before[rows, tied]
    sums = np.bincount(rows, weights=found / (items - tied), minlength=count)
    average = sums / before[:, -1]

    every = np.arange(count)
    precision = {}
    for k in cutoffs:
        border = similarities[:, items - k]
        above = (similarities > border[:, None]).sum(1)
        begin, end = first[:, items - k], items - above
        found = before[:, -1] - before[every, end]
        shared = (before[every, end] - before[every, begin]) * ((k - above) / (end - begin))
        precision[k] = (found + shared) / k
    return average, precision
