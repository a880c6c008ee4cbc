"""The contract of a packing."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Packing(ABC):
    """Integer codes <-> bytes, lossless and deterministic.

    A part whose stream would not be smaller than fixed width is stored by the packing `bits`: a
    packing need not care that nothing expands.

    Attributes:
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
            values: 1-D integer tensor, 0 <= value < cardinality.
            cardinality: number of symbols.

        Returns:
            1-D uint8 tensor on the CPU.
        """

    @abstractmethod
    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """The `count` codes of a stream, 1-D integer tensor.

        The stream may come from anyone; `count` has been checked against the layer's weights.

        Raises:
            ValueError: it is not what `pack` writes for these arguments.
        """
