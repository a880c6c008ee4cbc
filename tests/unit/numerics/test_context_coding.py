"""Streams of codes by classes of rows and columns, against a reader in plain Python."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_reader import read_context
from torch import Tensor

from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.context.classes import classify
from vqzoo.numerics.coding.context.first.stream import unpack as unpack_first
from vqzoo.numerics.coding.context.stream import pack, unpack
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin.manager import installed_plugins

GOLDEN = Path(__file__).parents[2] / "golden"
MACHINE = np.array([[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]])


def laplacian(m: int, n: int, scale: float, spread: float, seed: int = 0) -> np.ndarray:
    """Integers around 0 whose rows and columns differ in scale by exp of a normal variable."""
    random = np.random.default_rng(seed)
    scales = scale * np.exp(spread * (random.normal(size=(m, 1)) + random.normal(size=n)))
    return np.rint(random.laplace(size=(m, n)) * scales).astype(np.int64)


def centred(values: np.ndarray) -> tuple[Tensor, int]:
    """As codes around the middle of their cardinality."""
    reach = int(np.abs(values).max())
    return torch.from_numpy(values + reach), 2 * reach + 1


def walk(m: int, n: int, seed: int = 0) -> np.ndarray:
    """Codes of a trellis whose odd levels are rarely 0."""
    random = np.random.default_rng(seed)
    codes, states = np.empty((m, n), np.int64), np.zeros(n, np.int64)
    for i in range(m):
        states = states if i % 128 else np.zeros(n, np.int64)
        zero = random.random(n) < np.where(states % 2, 0.05, 0.8)
        codes[i] = np.where(zero, 0, random.choice([-2, -1, 1, 2], n))
        states = MACHINE[states, codes[i] % 2]
    return codes


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Codes with any skew, and their cardinality."""
    cardinality = draw(st.sampled_from([1, 2, 3, 5, 16, 200, 256, 257, 65536]))
    m, n = draw(st.sampled_from([(0, 3), (1, 1), (1, 50), (300, 1), (13, 7), (150, 20), (40, 90)]))
    power = draw(st.sampled_from([0.5, 1.0, 3.0, 20.0]))
    seed = draw(st.integers(0, 1000))
    random = np.random.default_rng(seed)
    rows = power * np.exp(random.normal(size=(m, 1)))
    values = np.minimum(random.random((m, n)) ** rows * cardinality, cardinality - 1)
    return torch.from_numpy(values.astype(np.int64)), cardinality


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_unpacking_returns_the_codes(coded: tuple[Tensor, int]) -> None:
    codes, cardinality = coded
    stream = pack(codes, cardinality)
    result = unpack(stream, cardinality, *codes.shape)
    assert result.dtype == (torch.uint8 if cardinality <= 256 else torch.int32)
    assert result.long().equal(codes)
    assert read_context(bytes(stream.tolist()), *codes.shape) == codes.tolist()


@pytest.mark.parametrize("values", [laplacian(700, 90, 2, 0.8), walk(700, 90)], ids=["", "walk"])
def test_classes_and_walks_are_read_as_specified(values: np.ndarray) -> None:
    codes, cardinality = centred(values)
    stream = pack(codes, cardinality)
    assert unpack(stream, cardinality, 700, 90).long().equal(codes)
    assert read_context(bytes(stream.tolist()), 700, 90) == codes.tolist()


def test_several_chunks_on_any_number_of_threads() -> None:
    codes, cardinality = centred(laplacian(1500, 400, 1, 0.5))
    packed = []
    for threads in (1, 3):
        with use_threads(threads):
            packed.append(pack(codes, cardinality))
            assert unpack(packed[-1], cardinality, 1500, 400).long().equal(codes)
    assert packed[0].equal(packed[1])
    assert read_context(bytes(packed[0].tolist()), 1500, 400) == codes.tolist()


def test_rows_and_columns_of_different_spread_take_fewer_bits() -> None:
    """Within 2% of the entropy under the very distributions that the codes were drawn from."""
    random = np.random.default_rng(0)
    scales = np.exp(random.choice([-1.0, 0, 1], (1000, 1)) + random.choice([-0.7, 0.7], 300))
    values = np.rint(random.laplace(size=(1000, 300)) * scales).astype(np.int64)
    # P(q) of a Laplacian rounded: 1 - exp(-1/2s) at 0, else exp(-|q|/s)·sinh(1/2s).
    magnitude = np.abs(values)
    p = np.where(
        magnitude == 0,
        1 - np.exp(-0.5 / scales),
        np.exp(-magnitude / scales) * np.sinh(0.5 / scales),
    )
    codes, cardinality = centred(values)
    size = 8 * pack(codes, cardinality).numel()
    assert size < 1.02 * -np.log2(p).sum()
    assert size < 0.93 * 8 * ans.pack(codes.reshape(-1), cardinality).numel()


def test_states_of_a_trellis_take_fewer_bits() -> None:
    codes, cardinality = centred(walk(1000, 100))
    shuffled = codes[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    assert pack(codes, cardinality).numel() < 0.8 * pack(shuffled, cardinality).numel()


def test_codes_that_are_all_alike_cost_little_more_than_their_entropy() -> None:
    codes, cardinality = centred(laplacian(400, 400, 3, 0))
    assert 8 * pack(codes, cardinality).numel() < 1.005 * entropy_bits(codes, cardinality) + 800


@pytest.mark.parametrize("cardinality", [1, 2, 65536])
def test_a_single_symbol_costs_nothing(cardinality: int) -> None:
    codes = torch.full((1000, 1000), cardinality - 1)
    stream = pack(codes, cardinality)
    assert stream.numel() <= 12
    assert unpack(stream, cardinality, 1000, 1000).long().equal(codes)


def test_classes_count_the_codes_of_their_cells() -> None:
    values = laplacian(200, 60, 2, 0.5)
    codes = (values - values.min()).astype(np.int32)
    states = (np.arange(60) % 2 * np.ones((200, 1))).astype(np.uint8)
    symbols = int(codes.max()) + 1
    classes = classify(codes, states, symbols)
    assert classes.counts.shape[0] > 1
    expected = np.zeros_like(classes.counts)
    np.add.at(
        expected, (classes.rows[:, None], classes.columns[None], states.astype(int), codes), 1
    )
    assert np.array_equal(classes.counts, expected)


def test_codes_out_of_range_are_refused() -> None:
    for codes in ([[0, 4]], [[-1, 0]]):
        with pytest.raises(ValueError, match="below 4"):
            pack(torch.tensor(codes), 4)


def test_wide_codes_use_classes() -> None:
    """Codes of 2,000 symbols, whose rows and columns differ in spread, stay near their entropy."""
    values = laplacian(500, 200, 60, 0.5)
    scales = np.abs(values).mean(1, keepdims=True) * np.abs(values).mean(0) / np.abs(values).mean()
    p = np.exp(-np.abs(values) / scales) * np.tanh(0.5 / scales)
    codes, cardinality = centred(values)
    stream = pack(codes, cardinality)
    assert cardinality > 1000
    assert unpack(stream, cardinality, 500, 200).long().equal(codes)
    assert 8 * stream.numel() < 1.02 * -np.log2(p).sum()


def test_names_that_mean_nothing_are_packed_as_by_ans() -> None:
    """Neighbours of 1,000 symbols have nothing in common: every other one occurs."""
    random = np.random.default_rng(0)
    codes = torch.from_numpy(random.permutation(1000)[random.integers(0, 60, (300, 200))])
    stream = pack(codes, 1000)
    assert stream.numel() == 1 + ans.pack(codes, 1000).numel()
    assert unpack(stream, 1000, 300, 200).long().equal(codes)
    assert read_context(bytes(stream.tolist()), 300, 200) == codes.tolist()


@pytest.mark.parametrize("version", ["context-1", "context-2", "context-2-equal-chunks"])
def test_golden_streams_are_read(version: str) -> None:
    files = sorted((GOLDEN / version).glob("*.npz"))
    assert len(files) >= 5
    for file in files:
        with np.load(file) as golden:
            codes, cardinality = torch.from_numpy(golden["codes"]), int(golden["cardinality"])
            stream = torch.from_numpy(golden["stream"])
        read = unpack_first if version == "context-1" else unpack
        assert read(stream, cardinality, *codes.shape).int().equal(codes), file.name
        if version == "context-2-equal-chunks":
            assert pack(codes, cardinality).equal(stream), file.name
        for raw in (stream[:-1], torch.cat([stream, stream[:4]])):
            with pytest.raises(ValueError, match=r"stream|chunk"):
                read(raw, cardinality, *codes.shape)


def test_the_packing_reads_its_first_version() -> None:
    packing = installed_plugins().packings.get("context").item
    assert packing.version == "2"
    assert packing.earlier == ("1",)
    with np.load(GOLDEN / "context-1" / "walk.npz") as golden:
        stream, codes = torch.from_numpy(golden["stream"]), torch.from_numpy(golden["codes"])
    assert packing.unpack_earlier("1", stream, 5, (300, 40)).int().equal(codes)


STREAMS = [
    centred(laplacian(300, 40, 2, 0.8)),
    centred(walk(300, 40)),
    centred(laplacian(2, 3, 9, 0)),
    (torch.full((5, 5), 3), 9),
    centred(laplacian(300, 40, 100, 0.3)),
]


@cache
def packed(which: int) -> Tensor:
    """One of the streams; nobody may write to it."""
    return pack(*STREAMS[which])


def refused(stream: Tensor, cardinality: int, m: int, n: int) -> bool:
    """Whether a stream is refused; one that is not gives codes below the cardinality."""
    try:
        codes = unpack(stream, cardinality, m, n)
    except ValueError:
        return True
    assert codes.shape == (m, n)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < cardinality
    return False


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(range(5)), st.data())
def test_damaged_streams_are_refused_or_decoded(which: int, data: st.DataObject) -> None:
    codes, cardinality = STREAMS[which]
    raw = packed(which).numpy().copy()
    head = st.integers(0, min(60, len(raw) - 1))
    for place in data.draw(st.lists(head | st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    refused(torch.from_numpy(raw), cardinality, *codes.shape)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([1, 2, 17, 256, 65536]))
def test_any_bytes_are_refused_or_decoded(raw: bytes, cardinality: int) -> None:
    stream = torch.tensor(list(raw), dtype=torch.uint8)
    refused(stream, cardinality, 20, 30)
    refused(stream, cardinality, 1, 1)


@pytest.mark.parametrize("which", range(5))
def test_truncated_and_extended_streams_are_refused(which: int) -> None:
    codes, cardinality = STREAMS[which]
    stream = packed(which)
    for length in {0, 1, 2, 3, 10, 40, 100, len(stream) // 2, len(stream) - 1}:
        if length < len(stream):
            assert refused(stream[:length], cardinality, *codes.shape)
    for extra in (1, 4, 100):
        extended = torch.cat([stream, torch.zeros(extra, dtype=torch.uint8)])
        assert refused(extended, cardinality, *codes.shape)
    m, n = codes.shape
    if which != 3:
        assert refused(stream, cardinality, m + 1, n)
    assert refused(stream, 2, m, n)
    assert refused(torch.zeros(5, dtype=torch.int16), cardinality, m, n)
    assert refused(stream, cardinality, -m, n)


def test_a_few_bytes_for_many_rows_fail_before_anything_is_decoded() -> None:
    """A head of 12 x 12 classes, of which the stream holds none."""
    codes, cardinality = STREAMS[0]
    stream = pack(codes, cardinality)[:40]
    assert refused(stream, cardinality, 20_000, 100)
