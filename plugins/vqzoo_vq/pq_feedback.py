"""pq with error feedback: sub-vectors are chosen block by block, each error pushed into the rest.

GPTVQ (van Baalen et al. 2024, arXiv 2402.15319, section 3.2), with the whole conditional block of
H as the metric, and with codebooks of blocks trained on what the errors so far have made of them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import assign, train_codebooks
from vqzoo.numerics.clustering.metric_kmeans import assign_by_metric, metric_kmeans
from vqzoo.numerics.feedback.layer import feedback_of
from vqzoo.plugin import Floats, SecondOrder
from vqzoo.plugin.limits import StorageDtype
from vqzoo_vq.blocks import (
    CodebookScope,
    Cut,
    block_points,
    by_groups,
    codebook_groups,
    empty_codes,
)
from vqzoo_vq.by_answers import importance_of_rows, quantize_twice, value_weights

# Suffix, codes (blocks, points) and stored codebook of the whole blocks and the tail.
Clusters = Iterator[tuple[str, Tensor, Floats]]


def feed_back_columns(
    weight: Tensor,
    shape: Cut,
    sizes: Tensor | None,
    k: int,
    scope: CodebookScope,
    dtype: StorageDtype,
    second_order: SecondOrder,
    seed: int,
    progress: Callable[[int, int], None],
) -> Clusters:
    """Cluster sub-vectors of columns.

    Args:
        weight: (m, n).
        shape: the cut of its columns.
        sizes: (m, 1), by which rows are divided, or None.
        k: centroids a codebook.
        scope: one codebook for the layer or for each block.
        dtype: of stored codebooks.
        second_order: of the layer.
        seed: of k-means.
        progress: takes (done, total) steps.
    """
    groups = len(second_order.hessian[0])
    feedback = feedback_of(second_order.hessian, shape.d)
    rows = importance_of_rows(second_order.row_weights, sizes).view(groups, -1)
    steps = torch.ones_like(weight[:, :1]) if sizes is None else sizes
    parts = codebook_groups(shape, k, scope)
    counts = [part.k for part in parts]
    codes = empty_codes(shape, counts, weight.device)
    books = [weight.new_zeros(part.books, part.k, part.d) for part in parts]
    done = 0

    def train(target: Tensor) -> None:
        """Train the codebooks of the layer on what its blocks are, or have become."""
        all_points = block_points(target, shape.d, "columns", "block", sizes)
        for i, metrics in enumerate(feedback.block_metrics()):
            clusters = metric_kmeans(
                by_groups(all_points[i], groups),
                metrics.flatten(0, 1),
                counts[i],
                weights=rows.repeat(len(metrics), 1),
                shared=True,
                seed=seed,
                progress=progress,
            )
            books[i] = Floats.of(clusters.centroids, dtype).values

    def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        nonlocal done
        i = int(len(columns) < shape.d)
        place = int(columns[0]) // shape.d if not i else 0
        points = by_groups((block / steps).T[None], groups)
        if scope == "block":
            clusters = metric_kmeans(
                points, metric, counts[i], weights=rows, shared=groups > 1, seed=seed
            )
            books[i][place] = Floats.of(clusters.centroids, dtype).values[0]
            done += 1
            progress(done, shape.blocks + bool(shape.tail))
        book = books[i][place if scope == "block" else 0]
        chosen = assign_by_metric(points, metric, book[None]).flatten()
        codes[i][place] = chosen
        return book[chosen.long()] * steps

    if scope == "layer":
        quantize_twice(weight, feedback, second_order, train, choose, (books, codes))
    else:
        feedback.quantize(weight, choose)
    for suffix, some_codes, book in zip(shape.suffixes, codes, books, strict=True):
        yield suffix, some_codes, Floats.of(book, dtype)


def feed_back_rows(
    weight: Tensor,
    shape: Cut,
    sizes: Tensor | None,
    k: int,
    scope: CodebookScope,
    dtype: StorageDtype,
    second_order: SecondOrder,
    seed: int,
    progress: Callable[[int, int], None],
) -> Clusters:
    """Cluster sub-vectors of rows, each of which lies in one column; see `feed_back_columns`."""
    feedback = feedback_of(second_order.hessian)
    weights = value_weights(feedback, second_order.row_weights, sizes)
    steps = torch.ones_like(weight[:, :1]) if sizes is None else sizes
    parts = [
        part.unflatten(0, (blocks, d)).mean(1)
        for part, (blocks, d) in zip(
            weights.split([blocks * d for blocks, d in shape.widths]), shape.widths, strict=True
        )
    ]
    del weights
    counts = [part.k for part in codebook_groups(shape, k, scope)]
    codes = empty_codes(shape, counts, weight.device)
    books: list[Tensor] = []

    def train(target: Tensor) -> None:
        """Train codebooks on what the sub-vectors are, or have become."""
        groups = block_points(target, shape.d, "rows", scope, sizes)
        trained = [
            train_codebooks(
                points, count, weights=part.view(len(points), -1), seed=seed, progress=progress
            )
            for points, part, count in zip(groups, parts, counts, strict=True)
        ]
        books[:] = [Floats.of(book, dtype).values for book in trained]

    def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        scaled, start = block / steps, 0
        values: list[Tensor] = []
        for book, some_codes, (blocks, d) in zip(books, codes, shape.widths, strict=True):
            vectors = scaled[start : start + blocks * d].view(blocks, d)
            if scope == "block":
                chosen = assign(vectors[:, :, None], book)[:, 0]
                values.append(book[torch.arange(blocks, device=book.device), chosen.long()])
            else:
                chosen = assign(vectors.T[None].contiguous(), book)[0]
                values.append(book[0, chosen.long()])
            some_codes[:, columns[0]] = chosen
            start += blocks * d
        return torch.cat([part.reshape(-1, 1) for part in values]) * steps

    quantize_twice(weight, feedback, second_order, train, choose, (books, codes))
    for suffix, some_codes, book in zip(shape.suffixes, codes, books, strict=True):
        yield suffix, some_codes, Floats.of(book, dtype)
