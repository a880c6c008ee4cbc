"""The contract of a packing."""

import math
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
        earlier: versions whose streams `unpack_earlier` reads.
        summary: one line for the help.
        random_access: whether one code can be read without decoding those before it.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    earlier: ClassVar[tuple[str, ...]] = ()
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

    def pack_part(self, values: Tensor, cardinality: int) -> Tensor:
        """Pack the codes of one part in the shape that the method gave them.

        The core calls this. By default it packs the flattened codes; override it, and
        `unpack_part`, if the stream depends on the shape, as with contexts of rows and columns.

        Args:
            values: tensor of any shape on the CPU, of any integer dtype, 0 <= value < cardinality.
            cardinality: number of symbols.

        Returns:
            1-D uint8 tensor on the CPU.
        """
        return self.pack(values.reshape(-1), cardinality)

    def unpack_part(self, stream: Tensor, cardinality: int, shape: tuple[int, ...]) -> Tensor:
        """Unpack a stream of `pack_part`.

        Args:
            stream: 1-D uint8 tensor on the CPU. It may come from an untrusted file.
            cardinality: number of symbols.
            shape: of the codes; their number is already checked against that of the weights.

        Returns:
            The codes, integer tensor of that shape.

        Raises:
            ValueError: `pack_part` writes no such stream for these arguments.
        """
        count = math.prod(shape)
        codes = self.unpack(stream, cardinality, count)
        if codes.shape != (count,):
            raise ValueError(f"{self.name} unpacked {codes.numel()} codes instead of {count}")
        return codes.reshape(shape)

    def unpack_earlier(
        self, version: str, stream: Tensor, cardinality: int, shape: tuple[int, ...]
    ) -> Tensor:
        """Unpack a stream of an earlier version, one of `earlier`; see `unpack_part`."""
        raise NotImplementedError(f"{self.name} declares version {version}, but does not read it")
