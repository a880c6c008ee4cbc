"""Decoders into a reused buffer, against a copy of the result."""

from collections.abc import Callable

import pytest
import torch
from report import Result
from torch import Tensor
from weights import weight

from vqzoo.numerics.decoding.decode import decode_pq, decode_residual, decode_scalar

LAYER = "alexnet.fc6"


def codes(k: int, *shape: int) -> Tensor:
    drawn = torch.randint(0, k, shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint8)


def decoders(m: int, n: int) -> dict[str, Callable[[Tensor], Tensor]]:
    pq, shared, two = codes(256, n // 4, m), codes(256, n // 8, m), codes(256, n // 8, 2, m)
    four, eight = codes(16, m, n), codes(256, m, n)
    books, one = torch.randn(n // 4, 256, 4), torch.randn(1, 256, 8)
    stages, table = torch.randn(1, 2, 256, 8), torch.randn(256)
    copied = torch.randn(m, n)
    return {
        "memcpy": lambda out: out.copy_(copied),
        "pq d=4 k=256": lambda out: decode_pq(pq, books, out),
        "shared d=8 k=256": lambda out: decode_pq(shared, one, out),
        "rq d=8 k=256 t=2": lambda out: decode_residual(two, stages, out),
        "scalar k=16": lambda out: decode_scalar(four, table[:16], out),
        "scalar k=256": lambda out: decode_scalar(eight, table, out),
    }


@pytest.mark.parametrize("name", list(decoders(8, 8)))
def test_decoding(benchmark: Callable[..., object], name: str, results: list[Result]) -> None:
    m, n = weight(LAYER).shape
    decode = decoders(m, n)[name]
    out = torch.zeros(m, n)
    decode(out)
    benchmark.pedantic(decode, args=(out,), rounds=30)
    assert torch.isfinite(out).all()
    seconds = benchmark.stats.stats.min
    library = "memcpy" if name == "memcpy" else "vqzoo"
    results.append(Result(LAYER, f"decode {name}", library, seconds, 0.0, None, 1.0))
