"""The conformance kit's rules for packings."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqzoo.plugin.packing import Packing
from vqzoo.testing.broken import check_rules, require

_CARDINALITIES = (1, 2, 3, 5, 16, 17, 255, 256, 257, 4096, 65536)


def unpack_inverts_pack(packing: Packing) -> None:
    """`unpack` returns the codes that `pack` was given, for every count and cardinality, and for
    uniform, skewed and constant codes. So does `unpack_part` with those of `pack_part`, for codes
    of every shape."""
    for what, values, cardinality in (*_code_vectors(), *_code_arrays()):
        unpacked = _unpack(packing, _pack(packing, values, cardinality), cardinality, values)
        shape = tuple(unpacked.shape)
        require(shape == tuple(values.shape), f"{what}: unpack returned codes of shape {shape}")
        require(not unpacked.dtype.is_floating_point, f"{what}: unpack returned {unpacked.dtype}")
        require(torch.equal(unpacked.long(), values.long()), f"{what}: unpack returned other codes")


def pack_returns_bytes(packing: Packing) -> None:
    """`pack` returns a 1-D uint8 tensor on the CPU, which is what a file can hold."""
    for what, values, cardinality in (*_code_vectors(), *_code_arrays()):
        stream = _pack(packing, values, cardinality)
        valid = stream.dtype == torch.uint8 and stream.dim() == 1 and stream.device.type == "cpu"
        require(valid, f"{what}: pack returned {stream.dtype} of shape {tuple(stream.shape)}")


def packing_is_deterministic(packing: Packing) -> None:
    """`pack` returns the same bytes for the same codes, and does not modify the codes: two runs of
    one recipe must write files with the same sha256."""
    for what, values, cardinality in (*_code_vectors(), *_code_arrays()):
        before = values.clone()
        first, second = (_pack(packing, values, cardinality) for _ in range(2))
        require(torch.equal(first, second), f"{what}: the second call returned other bytes")
        require(torch.equal(before, values), f"{what}: pack modified the codes")


def the_integer_dtype_does_not_matter(packing: Packing) -> None:
    """`pack` accepts codes as uint8, int16, int32 or int64, and returns the same bytes for each."""
    for values in (_draw(100, 200), _draw(100, 200).view(10, 10)):
        expected = _pack(packing, values, 200)
        for dtype in (torch.uint8, torch.int16, torch.int32):
            same = torch.equal(_pack(packing, values.to(dtype), 200), expected)
            require(same, f"{dtype} codes give other bytes than int64 codes")


def damaged_streams_are_refused(packing: Packing) -> None:
    """`unpack` raises ValueError for a stream that was truncated or extended. Anyone may have
    written it."""
    for what, values, cardinality in (*_code_vectors(), *_code_arrays()):
        stream = _pack(packing, values, cardinality)
        extended = torch.cat([stream, torch.zeros(1, dtype=torch.uint8)])
        damaged = [("extended", extended)]
        if stream.numel():
            damaged.append(("truncated", stream[:-1]))
        for damage, bad in damaged:
            try:
                _unpack(packing, bad, cardinality, values)
            except ValueError:
                continue
            require(False, f"{what}: unpack accepted a stream that was {damage}")


def random_bytes_are_decoded_or_refused(packing: Packing) -> None:
    """`unpack` either decodes random bytes to `count` codes that are not negative, or raises
    ValueError; it never raises another exception and never crashes."""
    generator = torch.Generator().manual_seed(1)
    for what, values, cardinality in (*_code_vectors(), *_code_arrays()):
        size = _pack(packing, values, cardinality).numel()
        noise = torch.randint(256, (size,), generator=generator).to(torch.uint8)
        try:
            unpacked = _unpack(packing, noise, cardinality, values)
        except ValueError:
            continue
        count = unpacked.numel()
        require(count == values.numel(), f"{what}: random bytes gave {count} codes")
        require(not count or int(unpacked.min()) >= 0, f"{what}: random bytes gave negative codes")


PACKING_RULES: tuple[Callable[[Packing], None], ...] = (
    unpack_inverts_pack,
    pack_returns_bytes,
    packing_is_deterministic,
    the_integer_dtype_does_not_matter,
    damaged_streams_are_refused,
    random_bytes_are_decoded_or_refused,
)


def check_packing(packing: Packing | type[Packing]) -> None:
    """Check a packing against the contract.

    Args:
        packing: the class, or an instance.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule.
    """
    instance = packing() if isinstance(packing, type) else packing
    check_rules(type(instance).__name__, PACKING_RULES, lambda: instance)


def _code_vectors() -> Iterator[tuple[str, Tensor, int]]:
    """Yield (description, codes, cardinality)."""
    for cardinality in _CARDINALITIES:
        for count in (0, 1, 7, 8, 1001):
            yield f"{count} codes below {cardinality}", _draw(count, cardinality), cardinality
        yield f"the last code below {cardinality}", torch.full((33,), cardinality - 1), cardinality
        skewed = (_draw(1001, 1000).double() / 1000).pow(8).mul(cardinality).long()
        yield f"skewed codes below {cardinality}", skewed, cardinality


def _code_arrays() -> Iterator[tuple[str, Tensor, int]]:
    """Yield (description, codes that are not a vector, cardinality)."""
    for cardinality in (1, 3, 16, 257):
        for shape in ((0, 3), (1, 40), (40, 1), (13, 7), (2, 3, 4), ()):
            codes = _draw(math.prod(shape), cardinality).view(shape)
            yield f"{shape} codes below {cardinality}", codes, cardinality
    rows = torch.arange(1, 131)[:, None]
    yield "rows of different spread", _draw(130 * 40, 1 << 16).view(130, 40) % rows, 130


def _pack(packing: Packing, values: Tensor, cardinality: int) -> Tensor:
    """Pack a vector by `pack`, and codes of any other shape by `pack_part`."""
    return (packing.pack if values.dim() == 1 else packing.pack_part)(values, cardinality)


def _unpack(packing: Packing, stream: Tensor, cardinality: int, like: Tensor) -> Tensor:
    """Unpack what may be a stream of `_pack` for codes of the shape of `like`."""
    if like.dim() == 1:
        return packing.unpack(stream, cardinality, like.numel())
    return packing.unpack_part(stream, cardinality, tuple(like.shape))


def _draw(count: int, cardinality: int) -> Tensor:
    return torch.randint(cardinality, (count,), generator=torch.Generator().manual_seed(count))
