"""Packings and their peers on the codes of a full AlexNet: size against entropy, and time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
import zstandard
from dahuffman import HuffmanCodec
from packing_report import PackingResult, packing_table
from torch import Tensor
from weights import weight

from vqzoo.numerics.clustering.kmeans import kmeans
from vqzoo.numerics.clustering.scalar_kmeans import scalar_kmeans
from vqzoo.numerics.coding import ans, bits, huffman
from vqzoo.numerics.coding.entropy import entropy_bits, symbol_counts
from vqzoo.numerics.coding.symbol_table import read_table
from vqzoo.numerics.threads import use_threads

ALEXNET = 61_100_840
Stream = Tensor | bytes


@dataclass(frozen=True)
class Contender:
    encode: Callable[[Tensor, int], Stream]
    decode: Callable[[Stream, int, int], Tensor]
    head: int | None = None
    """Bytes before the table, where the stream has one."""
    threads: int | None = None
    share: float = 1.0


class Dahuffman:
    """Pure Python; the codec is made while encoding, as our table is."""

    def encode(self, codes: Tensor, k: int) -> bytes:
        counts = symbol_counts(codes, k)
        self.codec = HuffmanCodec.from_frequencies({s: int(c) for s, c in enumerate(counts) if c})
        return self.codec.encode(codes.tolist())

    def decode(self, stream: Stream, k: int, count: int) -> Tensor:
        return torch.tensor(self.codec.decode(stream), dtype=torch.uint8)


def zstd(level: int) -> Contender:
    """One byte a code."""
    return Contender(
        lambda codes, k: zstandard.compress(codes.numpy(), level),
        lambda stream, k, count: torch.frombuffer(
            bytearray(zstandard.decompress(stream)), dtype=torch.uint8
        ),
    )


def width(k: int) -> int:
    return (k - 1).bit_length()


_PEER = Dahuffman()
CONTENDERS = {
    "ans": Contender(ans.pack, ans.unpack, 4),
    "huffman": Contender(huffman.pack, huffman.unpack, 2),
    "bits": Contender(
        lambda codes, k: bits.pack(codes, width(k)),
        lambda stream, k, count: bits.unpack(stream, width(k), count),
    ),
    "ans, 1 thread": Contender(ans.pack, ans.unpack, 4, threads=1),
    "huffman, 1 thread": Contender(huffman.pack, huffman.unpack, 2, threads=1),
    "zstd -1, 1 thread": zstd(1),
    "zstd -9, 1 thread": zstd(9),
    "dahuffman": Contender(_PEER.encode, _PEER.decode, share=1 / 512),
}


def like(codes: Tensor, k: int, count: int) -> Tensor:
    """So many independent codes, as frequent as these."""
    counts = symbol_counts(codes, k)
    times = np.ceil(counts / counts.sum() * (1 << 20)).astype(np.int64)
    slots = np.repeat(np.arange(k, dtype=np.uint8), times)
    random = np.random.default_rng(0)
    return torch.from_numpy(slots[random.integers(0, len(slots), count, np.int32)])


@cache
def codes(name: str) -> tuple[Tensor, int]:
    """Codes and their cardinality."""
    matrix = weight("vit_b.mlp")
    if name == "pq d=4 k=256":
        points = matrix.reshape(-1, 4).T.contiguous()[None]
        return like(kmeans(points, 256).codes, 256, ALEXNET // 4), 256
    k = int(name.removeprefix("km k="))
    return like(scalar_kmeans(matrix, k).codes, k, ALEXNET), k


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[list[PackingResult]]:
    """What is printed at the end."""
    results: list[PackingResult] = []
    yield results
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + packing_table(results))


def table_bytes(stream: Stream, contender: Contender, k: int) -> int:
    """Head and table of one of our entropy-coded streams."""
    if contender.head is None or not isinstance(stream, Tensor):
        return 0
    order = int(stream[contender.head - 1])
    return contender.head + read_table(stream.numpy()[contender.head :], order, k)[2]


@pytest.mark.parametrize("library", CONTENDERS)
@pytest.mark.parametrize("name", ["km k=16", "km k=256", "pq d=4 k=256"])
def test_packing(
    benchmark: Callable[..., object], name: str, library: str, found: list[PackingResult]
) -> None:
    contender = CONTENDERS[library]
    values, k = codes(name)
    values = values[: int(len(values) * contender.share)]
    count = len(values)
    contender.decode(contender.encode(values[:5000], k), k, 5000)  # compiled, if it is not yet
    with use_threads(contender.threads):
        clock = time.perf_counter()
        stream = contender.encode(values, k)
        encoding = time.perf_counter() - clock
        decoded = benchmark.pedantic(contender.decode, args=(stream, k, count), rounds=5)
    assert decoded.equal(values)
    size = stream.numel() if isinstance(stream, Tensor) else len(stream)
    found.append(
        PackingResult(
            f"{len(values) / contender.share / 1e6:.1f}M of {name}",
            library,
            8 * size / count,
            entropy_bits(values, k) / count,
            table_bytes(stream, contender, k) / size,
            encoding / contender.share,
            benchmark.stats.stats.min / contender.share,
            contender.share,
        )
    )
