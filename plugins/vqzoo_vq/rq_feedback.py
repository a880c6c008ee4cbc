"""rq with error feedback: sums of centroids, block by block, each error pushed into the rest.

After van Baalen et al. 2024, arXiv 2402.15319, section 3.2, with sums in the place of centroids.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqzoo.numerics.clustering.residual import residual_codes, residual_kmeans
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
from vqzoo_vq.by_answers import importance_of_rows

Steps = Callable[[int, int], None]


def feed_back_residuals(
    weight: Tensor,
    shape: Cut,
    sizes: Tensor | None,
    stages: int,
    k: int,
    scope: CodebookScope,
    dtype: StorageDtype,
    second_order: SecondOrder,
    seed: int,
    progress: Steps,
) -> Iterator[tuple[str, Tensor, Floats]]:
    """Quantize sub-vectors of columns by sums of centroids.

    Codebooks are trained by the mean of the metrics that they serve; codes are chosen by each
    block's own.

    Args:
        weight: (m, n).
        shape: the cut of its columns.
        sizes: (m, 1), by which rows are divided, or None.
        stages: codebooks that are summed.
        k: centroids a codebook.
        scope: codebooks for the layer or for each block.
        dtype: of stored codebooks.
        second_order: of the layer.
        seed: of k-means.
        progress: takes (done, total) steps.

    Yields:
        Suffix, codes (blocks, stages, m) and stored codebooks of the whole blocks and the tail.
    """
    groups = len(second_order.hessian[0])
    feedback = feedback_of(second_order.hessian, shape.d)
    rows = importance_of_rows(second_order.row_weights, sizes)
    steps = torch.ones_like(weight[:, :1]) if sizes is None else sizes
    parts = codebook_groups(shape, k, scope)
    counts = [part.k for part in parts]
    codes = empty_codes(shape, counts, weight.device, stages)
    books = [weight.new_zeros(part.books, stages, part.k, part.d) for part in parts]

    def train(
        points: Tensor, metric: Tensor, weights: Tensor, count: int, report: Steps | None
    ) -> Tensor:
        """Codebooks (stages, count, d) for points (d, p) by a metric (d, d)."""
        factor = torch.linalg.cholesky(metric)
        clusters = residual_kmeans(
            (factor.T.float() @ points)[None],
            count,
            stages,
            weights=weights[None],
            seed=seed,
            progress=report,
        )
        original = torch.linalg.solve_triangular(
            factor, clusters.codebooks[0].double(), upper=False, left=False
        )
        return Floats.of(original.float(), dtype).values

    if scope == "layer":
        all_points = block_points(weight, shape.d, "columns", "layer", sizes)
        for i, metrics in enumerate(feedback.block_metrics()):
            mass = metrics.diagonal(dim1=2, dim2=3).mean(2).float()  # (blocks, groups)
            weights = (mass / mass.mean())[:, :, None] * rows.view(groups, -1)
            mean = metrics.mean((0, 1))
            books[i][0] = train(all_points[i][0], mean, weights.flatten(), counts[i], progress)
        del all_points
    done = 0

    def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        nonlocal done
        i = int(len(columns) < shape.d)
        place = int(columns[0]) // shape.d if not i else 0
        points = (block / steps).T
        if scope == "block":
            mean = metric.double().mean(0)
            books[i][place] = train(points, mean, rows, counts[i], None)
            done += 1
            progress(done, shape.blocks + bool(shape.tail))
        book = books[i][place if scope == "block" else 0]
        factors = torch.linalg.cholesky(metric.double()).float()
        transformed = factors.mT @ by_groups(points[None], groups)
        chosen = residual_codes(transformed, book @ factors[:, None])  # (groups, stages, rows)
        codes[i][place] = chosen.transpose(0, 1).flatten(1)
        stage = torch.arange(stages, device=book.device)[:, None]
        return book[stage, codes[i][place].long()].sum(0) * steps

    feedback.quantize(weight, choose)
    for suffix, some_codes, book in zip(shape.suffixes, codes, books, strict=True):
        yield suffix, some_codes, Floats.of(book, dtype)
