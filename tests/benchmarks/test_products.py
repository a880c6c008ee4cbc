"""Products of a layer with a few inputs, straight from its codes, against torch's Linear."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from report import Result
from torch import Tensor
from weights import SHAPES

from vqzoo.numerics.decoding.product import multiply_pq

LAYER = "alexnet.fc6"
CODES = {"shared d=4 k=256": 1, "pq d=4 k=256": None}  # codebooks; None: one a block


def product(library: str, task: str, x: Tensor) -> Callable[[], Tensor]:
    m, n = SHAPES[LAYER]
    random = torch.Generator().manual_seed(0)
    if library == "float32":
        dense = torch.randn(m, n, generator=random)
        return lambda: F.linear(x, dense)
    if library == "bfloat16":
        half, narrow = torch.randn(m, n, generator=random).bfloat16(), x.bfloat16()
        return lambda: F.linear(narrow, half)
    codes = torch.randint(0, 256, (n // 4, m), generator=random).to(torch.uint8)
    books = torch.randn(CODES[task] or n // 4, 256, 4, generator=random)
    return lambda: multiply_pq(x, codes, books)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("library", "task"),
    [("float32", "dense"), ("bfloat16", "dense"), *(("vqzoo", task) for task in CODES)],
)
def test_products(
    benchmark: Callable[..., object], library: str, task: str, batch: int, results: list[Result]
) -> None:
    x = torch.randn(batch, SHAPES[LAYER][1], generator=torch.Generator().manual_seed(1))
    run = product(library, task, x)
    run()
    benchmark.pedantic(run, rounds=30)
    assert torch.isfinite(run()).all()
    seconds = benchmark.stats.stats.min
    name = f"product {task}, batch {batch}"
    results.append(Result(LAYER, name, library, seconds, 0.0, None, 1.0))
