"""Codebooks fitted to the codes of a wide layer: where H has a low rank, and where it has not."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from weights import SHAPES, weight

from vqzoo.numerics.feedback.layer import even_weights, feedback_loss
from vqzoo.numerics.feedback.refit import refit_codebooks
from vqzoo.numerics.threads import use_threads

LAYER = "alexnet.fc6"
WIDTH = 8192  # of the blocks of H that calibration gathers
D, K = 4, 256


def hessian(vectors: int, full: bool) -> list[Tensor]:
    """H of so many rectified input vectors; `full` adds 1% of the mean diagonal."""
    n = SHAPES[LAYER][1]
    x = torch.randn(vectors, n, generator=torch.Generator().manual_seed(1)).relu_()
    blocks = [part.mT @ part / vectors for part in x.split(WIDTH, 1)]
    for block in blocks if full else []:
        block.diagonal().add_(0.01 * block.diagonal().mean())
    return [block[None] for block in blocks]


@pytest.mark.parametrize("full", [False, True], ids=["512 vectors", "full rank"])
def test_refit(full: bool, capsys: pytest.CaptureFixture[str]) -> None:
    m, n = SHAPES[LAYER]
    blocks, matrix, rows = hessian(512, full), weight(LAYER), torch.ones(m)
    codes = torch.randint(K, (m, n // D), generator=torch.Generator().manual_seed(2))
    points = matrix.view(m, n // D, D)
    # Codes that fit a little: the signs of the weights choose 16 of the centroids.
    codes = codes // 16 * 16 + (points > 0).long() @ torch.tensor([8, 4, 2, 1])
    sums = torch.zeros(K, D).index_add_(0, codes.flatten(), points.reshape(-1, D))
    book = (sums / codes.flatten().bincount(minlength=K)[:, None]).half().float()

    def decode(books: list[Tensor], some: Tensor | None) -> Tensor:
        return F.embedding(codes if some is None else codes[some], books[0]).flatten(1)

    with use_threads(1):
        start = time.thread_time()
        fitted = refit_codebooks(matrix, [book], decode, blocks, rows, lambda b: b.half().float())
        elapsed = time.thread_time() - start
    before, after = (
        feedback_loss(matrix - decode([b], None), blocks, even_weights(rows))
        for b in (book, fitted[0])
    )
    with capsys.disabled():
        print(f"\n{LAYER}: refit in {elapsed:.1f} s of one thread, loss times {after / before:.4f}")
    assert after <= before
