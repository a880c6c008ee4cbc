"""The conformance kit finds each way in which a packing breaks the contract."""

import pytest
import torch
from broken_rules import broken_rules
from torch import Tensor

from vqzoo.plugin import Packing
from vqzoo.testing import check_packing


class Bytes(Packing):
    """Two bytes a code: sound."""

    name = "bytes"

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        wide = values.to(torch.int32)
        return torch.stack([wide & 255, wide >> 8], 1).to(torch.uint8).reshape(-1)

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        if stream.numel() != 2 * count:
            raise ValueError("the stream has another length")
        pairs = stream.view(-1, 2).to(torch.int32)
        return pairs[:, 0] + 256 * pairs[:, 1]


class OneByte(Bytes):
    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        return super().pack(values % 256, cardinality)


class Wide(Bytes):
    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        return super().pack(values, cardinality).to(torch.int16)


class Trusting(Bytes):
    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        return super().unpack(stream[: 2 * count], cardinality, stream.numel() // 2)[:count]


class Fragile(Bytes):
    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        codes = super().unpack(stream, cardinality, count)
        assert codes.numel() == 0 or int(codes.max()) < cardinality
        return codes


class Moody(Bytes):
    calls = 0

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        self.calls += 1
        return super().pack(values.sort().values if self.calls % 2 else values, cardinality)


class LongsOnly(Bytes):
    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        return super().pack(values << 1 >> 1, cardinality)


@pytest.mark.parametrize(
    ("packing", "rule"),
    [
        (OneByte, "unpack inverts pack: 1 codes below 257"),
        (Wide, "pack returns bytes"),
        (Trusting, "damaged streams are refused"),
        (Fragile, "random bytes are decoded or refused: AssertionError"),
        (Moody, "packing is deterministic"),
        (LongsOnly, "the integer dtype does not matter"),
    ],
)
def test_a_broken_packing_is_reported_with_the_rule(packing: type[Packing], rule: str) -> None:
    check_packing(Bytes)
    with pytest.raises(ExceptionGroup) as caught:
        check_packing(packing)
    reports = broken_rules(caught)
    assert any(rule.split(": 1 codes")[0] in text for text in reports), "\n".join(reports)
