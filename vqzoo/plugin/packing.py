"""The contract of a packing."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Packing(ABC):
    """A lossless, deterministic mapping between integer codes and bytes.

    The core stores a part with the packing `bits` wherever this packing's stream is not smaller
    than fixed-width codes, so a packing need not handle codes that do not compress.

    Attributes:
        name: what users type and artifacts record, of a-z, 0-9, - and _.
        version: of the stream format; raise it when old streams need another decoder.
        summary: one line for the help.
        random_access: whether one code can be read without decoding those before it.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = ""
    random_access: ClassVar[bool] = False

    @abstractmethod
    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """Pack codes.

        Args:
            values: 1-D tensor of any integer dtype, 0 <= value < cardinality.
            cardinality: number of symbols.

        Returns:
            1-D uint8 tensor on the CPU.
        """

    @abstractmethod
    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """Unpack a stream.

        Args:
            stream: 1-D uint8 tensor on the CPU. It may come from an untrusted file.
            cardinality: number of symbols.
            count: number of codes, already checked against the number of weights.

        Returns:
            The codes, 1-D integer tensor of `count` elements.

        Raises:
            ValueError: `pack` writes no such stream for these arguments.
        """
