"""The conformance kit's rules for packings."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vqzoo.plugin.packing import Packing
from vqzoo.testing.broken import check_rules, require

_CARDINALITIES = (1, 2, 3, 5, 16, 17, 255, 256, 257, 4096, 65536)


def codes_come_back(packing: Packing) -> None:
    """`unpack(pack(codes))` gives the codes, for every count, cardinality and distribution:
    uniform, skewed, constant, none at all."""
    for what, values, cardinality in _streams():
        found = packing.unpack(packing.pack(values, cardinality), cardinality, values.numel())
        require(found.dim() == 1, f"{what}: unpack gave {found.dim()} dimensions")
        require(not found.dtype.is_floating_point, f"{what}: unpack gave {found.dtype}")
        require(torch.equal(found.long(), values.long()), f"{what}: other codes come back")


def streams_are_bytes(packing: Packing) -> None:
    """`pack` returns a 1-D uint8 tensor on the CPU: that is what a file holds."""
    for what, values, cardinality in _streams():
        stream = packing.pack(values, cardinality)
        sound = stream.dtype == torch.uint8 and stream.dim() == 1 and stream.device.type == "cpu"
        require(sound, f"{what}: pack gave {stream.dtype} of shape {tuple(stream.shape)}")


def packing_is_deterministic(packing: Packing) -> None:
    """The same codes give the same bytes, and are left as they were: the file's sha256 decides
    whether anything has changed."""
    for what, values, cardinality in _streams():
        before = values.clone()
        first, second = packing.pack(values, cardinality), packing.pack(values, cardinality)
        require(torch.equal(first, second), f"{what}: other bytes the second time")
        require(torch.equal(before, values), f"{what}: the codes were changed")


def integer_dtypes_do_not_matter(packing: Packing) -> None:
    """Codes may be uint8, int16, int32 or int64: the bytes are those of their values."""
    values = _draw(100, 200)
    expected = packing.pack(values, 200)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        same = torch.equal(packing.pack(values.to(dtype), 200), expected)
        require(same, f"{dtype} codes give other bytes than int64")


def damaged_streams_are_refused(packing: Packing) -> None:
    """A stream that was cut or lengthened is refused with ValueError: it may come from anyone."""
    for what, values, cardinality in _streams():
        stream = packing.pack(values, cardinality)
        longer = torch.cat([stream, torch.zeros(1, dtype=torch.uint8)])
        damaged = [("lengthened", longer)] + ([("cut", stream[:-1])] if stream.numel() else [])
        for how, bad in damaged:
            try:
                packing.unpack(bad, cardinality, values.numel())
            except ValueError:
                continue
            require(False, f"{what}: a stream that was {how} was unpacked")


def any_bytes_give_codes_or_a_refusal(packing: Packing) -> None:
    """Random bytes are refused with ValueError, or give `count` codes that are not negative: never
    another exception, never a crash."""
    generator = torch.Generator().manual_seed(1)
    for what, values, cardinality in _streams():
        size = packing.pack(values, cardinality).numel()
        noise = torch.randint(256, (size,), generator=generator).to(torch.uint8)
        try:
            found = packing.unpack(noise, cardinality, values.numel())
        except ValueError:
            continue
        require(found.numel() == values.numel(), f"{what}: {found.numel()} codes out of noise")
        require(not found.numel() or int(found.min()) >= 0, f"{what}: negative codes out of noise")


PACKING_RULES: tuple[Callable[[Packing], None], ...] = (
    codes_come_back,
    streams_are_bytes,
    packing_is_deterministic,
    integer_dtypes_do_not_matter,
    damaged_streams_are_refused,
    any_bytes_give_codes_or_a_refusal,
)


def check_packing(packing: Packing | type[Packing]) -> None:
    """Try what the contract promises of a packing.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each rule that was broken.
    """
    made = packing() if isinstance(packing, type) else packing
    check_rules(type(made).__name__, PACKING_RULES, lambda: made)


def _streams() -> Iterator[tuple[str, Tensor, int]]:
    for cardinality in _CARDINALITIES:
        for count in (0, 1, 7, 8, 1001):
            yield f"{count} codes below {cardinality}", _draw(count, cardinality), cardinality
        yield f"the last code below {cardinality}", torch.full((33,), cardinality - 1), cardinality
        skewed = (_draw(1001, 1000).double() / 1000).pow(8).mul(cardinality).long()
        yield f"skewed codes below {cardinality}", skewed, cardinality


def _draw(count: int, cardinality: int) -> Tensor:
    return torch.randint(cardinality, (count,), generator=torch.Generator().manual_seed(count))
