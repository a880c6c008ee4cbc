"""Huffman and rANS streams, against readers in plain Python and other libraries."""

import heapq
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import constriction
import numpy as np
import pytest
import torch
from dahuffman import HuffmanCodec
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_reader import READERS, ans_table, huffman_table
from torch import Tensor

import vqzoo
from vqzoo.numerics.coding import ans, huffman
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.numerics.threads import use_threads

CODERS = {"huffman": huffman, "ans": ans}
both = pytest.mark.parametrize("name", CODERS)
MILLION = 1 << 20


def drawn(weights: np.ndarray, count: int, seed: int = 0) -> Tensor:
    """Random codes with probabilities proportional to the weights."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.choice(len(weights), count, p=weights / weights.sum()))


def bell(k: int) -> np.ndarray:
    return np.exp(-0.5 * ((np.arange(k) - k / 2) / (k / 7)) ** 2)


# Distributions like those of scalar k-means, pq, masks and gaps, and harder ones.
SKEWS: dict[str, np.ndarray] = {
    "bell of 16": bell(16),
    "bell of 256": bell(256),
    "uniform 200": np.ones(200),
    "rare ones": np.array([0.99, 0.01]),
    "hardly any": np.array([1.0, 1e-4, 1e-4]),
    "geometric": 2.0 ** -np.arange(20),
    "Zipf of 4096": 1 / np.arange(1, 4097),
    "bell of 65536": bell(65536),
    "few of 65536": np.isin(np.arange(65536), [3, 77, 65535]) * 1.0,
    "one and the rest": np.concatenate([[9.0], np.full(65535, 1 / 65535)]),
}


def unpacked(coder: ModuleType, stream: Tensor, cardinality: int, count: int) -> Tensor | None:
    """The codes of a stream that may be damaged; None if it is refused."""
    try:
        codes = coder.unpack(stream, cardinality, count)
    except ValueError:
        return None
    assert codes.shape == (count,)
    assert not count or 0 <= int(codes.min()) <= int(codes.max()) < cardinality
    return codes


@st.composite
def streams(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Codes with any skew, and their cardinality."""
    cardinality = draw(st.sampled_from([1, 2, 3, 5, 16, 200, 256, 257, 5000, 65536]))
    count = draw(st.sampled_from([0, 1, 2, 13, 300, 5000, 40_000]))
    power = draw(st.sampled_from([0.5, 1.0, 3.0, 20.0]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    values = np.minimum(random.random(count) ** power * cardinality, cardinality - 1)
    symbols = random.permutation(cardinality)
    return torch.from_numpy(symbols[values.astype(np.int64)]), cardinality


@both
@settings(max_examples=60)
@given(streams())
def test_unpacking_returns_the_codes(name: str, coded: tuple[Tensor, int]) -> None:
    codes, cardinality = coded
    stream = CODERS[name].pack(codes, cardinality)
    result = CODERS[name].unpack(stream, cardinality, len(codes))
    assert result.dtype == (torch.uint8 if cardinality <= 256 else torch.int32)
    assert result.long().equal(codes)
    assert READERS[name](bytes(stream.tolist()), len(codes)) == codes.tolist()


@both
@pytest.mark.parametrize("skew", ["bell of 16", "Zipf of 4096", "rare ones", "one and the rest"])
def test_several_chunks_on_any_number_of_threads(name: str, skew: str) -> None:
    codes, k = drawn(SKEWS[skew], 600_001), len(SKEWS[skew])
    packed = []
    for threads in (1, 3):
        with use_threads(threads):
            packed.append(CODERS[name].pack(codes, k))
            assert CODERS[name].unpack(packed[-1], k, len(codes)).long().equal(codes)
    assert packed[0].equal(packed[1])
    assert READERS[name](bytes(packed[0].tolist()), len(codes)) == codes.tolist()


@both
def test_shape_and_dtype_of_codes_do_not_matter(name: str) -> None:
    codes = torch.arange(24).reshape(2, 3, 4)
    stream = CODERS[name].pack(codes.reshape(-1), 30)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert CODERS[name].pack(codes.to(dtype), 30).equal(stream)
    assert CODERS[name].unpack(stream, 30, 24).tolist() == list(range(24))


@both
@pytest.mark.parametrize("cardinality", [1, 2, 65536])
def test_a_single_symbol_costs_nothing(name: str, cardinality: int) -> None:
    codes = torch.full((1_000_000,), cardinality - 1)
    stream = CODERS[name].pack(codes, cardinality)
    assert stream.numel() <= 12
    assert CODERS[name].unpack(stream, cardinality, len(codes)).long().equal(codes)
    assert CODERS[name].pack(codes[:0], cardinality).numel() == 0


@pytest.mark.parametrize("skew", SKEWS)
def test_ans_is_within_half_a_percent_of_the_entropy(skew: str) -> None:
    """Apart from the table, and from the states of the single chunk of nearly free codes."""
    k = len(SKEWS[skew])
    codes = drawn(SKEWS[skew], MILLION)
    stream = ans.pack(codes, k)
    _, start = ans_table(bytes(stream.tolist()))
    body = 8 * (stream.numel() - start)
    assert body <= 1.005 * entropy_bits(codes, k) + 8 * 36
    assert ans.unpack(stream, k, len(codes)).long().equal(codes)


def huffman_bits(codes: Tensor) -> int:
    """The total weight of the merges of Huffman's algorithm, computed with a heap."""
    heap = [int(count) for count in torch.bincount(codes) if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, merged)
        total += merged
    return total


@pytest.mark.parametrize("skew", SKEWS)
def test_huffman_has_the_length_of_an_optimal_prefix_code(skew: str) -> None:
    codes, k = drawn(SKEWS[skew], MILLION), len(SKEWS[skew])
    raw = bytes(huffman.pack(codes, k).tolist())
    lengths, start = huffman_table(raw)
    counts = torch.bincount(codes, minlength=k)
    bits = sum(length * int(counts[symbol]) for symbol, length in lengths.items())
    assert bits == huffman_bits(codes)
    chunks = -(-MILLION // (1 << raw[0]))
    assert 0 <= 8 * (len(raw) - start - 4 * (chunks - 1)) - bits < 8 * chunks


@pytest.mark.parametrize("skew", ["bell of 16", "bell of 256", "geometric", "rare ones"])
def test_sizes_beside_other_libraries(skew: str) -> None:
    codes, k = drawn(SKEWS[skew], 200_000), len(SKEWS[skew])
    counts = torch.bincount(codes, minlength=k)
    model = constriction.stream.model.Categorical(
        (counts / counts.sum()).numpy().astype(np.float32), perfect=False
    )
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(codes.numpy().astype(np.int32), model)
    stream = ans.pack(codes, k)
    _, start = ans_table(bytes(stream.tolist()))
    assert stream.numel() - start <= 1.002 * coder.get_compressed().nbytes + 36

    table = {s: int(c) for s, c in enumerate(counts) if c}
    # dahuffman codes one more symbol, the end of the stream, which takes code space.
    peer = len(HuffmanCodec.from_frequencies(table).encode(codes.tolist()))
    stream = huffman.pack(codes, k)
    _, start = huffman_table(bytes(stream.tolist()))
    assert stream.numel() - start <= peer


@both
@settings(max_examples=100)
@given(st.data())
def test_damaged_streams_are_refused_or_give_codes_in_range(name: str, data: st.DataObject) -> None:
    coder = CODERS[name]
    skew = data.draw(st.sampled_from(["bell of 16", "Zipf of 4096", "geometric", "few of 65536"]))
    count = data.draw(st.sampled_from([1, 40, 3000, 70_000]))
    codes, k = drawn(SKEWS[skew], count), len(SKEWS[skew])
    stream = coder.pack(codes, k)
    place = data.draw(st.integers(0, 8 * min(stream.numel(), 2000) - 1))
    flipped = stream.clone()
    flipped[place // 8] ^= 1 << place % 8
    unpacked(coder, flipped, k, count)
    cut = data.draw(st.integers(0, stream.numel() - 1))
    assert unpacked(coder, stream[:cut], k, count) is None
    assert unpacked(coder, torch.cat([stream, stream[:cut] + 1]), k, count) is None or cut == 0
    unpacked(coder, stream, k, count + 1)
    unpacked(coder, stream, max(1, k // 2), count)


@both
@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([1, 2, 256, 65536]), st.integers(0, 400_000))
def test_any_bytes_are_refused_or_give_codes_in_range(
    name: str, raw: bytes, cardinality: int, count: int
) -> None:
    unpacked(CODERS[name], torch.tensor(list(raw), dtype=torch.uint8), cardinality, count)


def changed(codes: Tensor, name: str, k: int, change: Callable[[bytearray], object]) -> bytes:
    raw = bytearray(CODERS[name].pack(codes, k).tolist())
    change(raw)
    return bytes(raw)


TWELVE = torch.tensor([0, 1, 0, 3, 0, 0, 1, 0, 0, 3, 0, 1])
FORGERIES: dict[str, tuple[str, Callable[[bytearray], object], str]] = {
    "chunks too small": ("huffman", lambda r: r.__setitem__(0, 17), "chunks of 2"),
    "chunks too large": ("huffman", lambda r: r.__setitem__(0, 25), "chunks of 2"),
    "an order out of range": ("huffman", lambda r: r.__setitem__(1, 25), "order"),
    "an incomplete code": ("huffman", lambda r: r.__setitem__(2, 0x9E), "complete|length|table"),
    "padding of the table": ("huffman", lambda r: r.__setitem__(3, 0xD6), "padding"),
    "padding of a chunk": ("huffman", lambda r: r.__setitem__(6, 1), "damaged"),
    "a byte too many": ("huffman", lambda r: r.append(0), "damaged"),
    "no head": ("huffman", lambda r: r.__delitem__(slice(1, None)), "head"),
    "a scale out of range": ("ans", lambda r: r.__setitem__(0, 7), "scale"),
    "a scale finer than the codes": ("ans", lambda r: r.__setitem__(0, 9), "scale"),
    "two lanes": ("ans", lambda r: r.__setitem__(1, 2), "lanes"),
    "other lanes": ("ans", lambda r: r.__setitem__(1, 4), "damaged"),
    "another sum": ("ans", lambda r: r.__setitem__(7, 0x51), "sum"),
    "another state": ("ans", lambda r: r.__setitem__(10, 0x59), "damaged"),
    "a state too small": ("ans", lambda r: r.__setitem__(slice(12, 16), bytes(4)), "damaged"),
    "a word too many": ("ans", lambda r: r.extend(bytes(4)), "damaged"),
    "a byte too many in words": ("ans", lambda r: r.append(0), "damaged"),
    "no head of four": ("ans", lambda r: r.__delitem__(slice(3, None)), "head"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_stream_is_refused(forgery: str) -> None:
    name, change, message = FORGERIES[forgery]
    raw = changed(TWELVE, name, 4, change)
    with pytest.raises(ValueError, match=message):
        CODERS[name].unpack(torch.tensor(list(raw), dtype=torch.uint8), 4, 12)


@both
def test_wrong_chunk_sizes_are_refused(name: str) -> None:
    codes = drawn(SKEWS["bell of 16"], 600_000)
    stream = CODERS[name].pack(codes, 16)
    start = (huffman_table if name == "huffman" else ans_table)(bytes(stream.tolist()))[1]
    for size in (0, 1, 4, 1 << 31, (1 << 32) - 1):
        forged = stream.clone()
        raw = list(size.to_bytes(4, "little"))
        forged[start : start + 4] = torch.tensor(raw, dtype=torch.uint8)
        assert unpacked(CODERS[name], forged, 16, len(codes)) is None


@both
def test_symbols_above_the_cardinality_are_refused(name: str) -> None:
    stream = CODERS[name].pack(TWELVE, 4)
    with pytest.raises(ValueError, match="past 3"):
        CODERS[name].unpack(stream, 3, 12)
    with pytest.raises(ValueError, match="past 3"):
        CODERS[name].unpack(CODERS[name].pack(torch.full((9,), 3), 4), 3, 9)


@both
def test_tensors_that_cannot_be_streams_are_refused(name: str) -> None:
    for stream, count in (
        (torch.zeros(9), 3),
        (torch.zeros(3, 3, dtype=torch.uint8), 3),
        (torch.zeros(9, dtype=torch.uint8), -1),
        (torch.zeros(1, dtype=torch.uint8), 0),
    ):
        with pytest.raises(ValueError, match=r"stream|negative"):
            CODERS[name].unpack(stream, 4, count)


@both
@pytest.mark.parametrize("codes", [[-1], [4]])
def test_codes_out_of_range_are_refused(name: str, codes: list[int]) -> None:
    with pytest.raises(ValueError, match="below 4"):
        CODERS[name].pack(torch.tensor(codes), 4)


def test_the_worked_example_of_the_docs() -> None:
    """The page shows the bytes that are written, and the readers, written from it, decode them."""
    page = (Path(vqzoo.__file__).parents[1] / "docs/packings.md").read_text()
    for name, coder in CODERS.items():
        match = re.search(rf'bytes\({name}\.tolist\(\)\)\.hex\(" "\) == "([0-9a-f ]+)"', page)
        assert match is not None
        raw = bytes.fromhex(match[1])
        assert bytes(coder.pack(TWELVE, 4).tolist()) == raw
        assert READERS[name](raw, 12) == TWELVE.tolist()
