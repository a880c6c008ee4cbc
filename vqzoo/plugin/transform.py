"""The contract of a transform: what is done to a matrix before quantizing, and undone after it."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from vqzoo.plugin.code import Code
from vqzoo.plugin.method import LayerContext, Method


class Transform(Method):
    """Changes a matrix into one that quantizes better (a rotation, a scaling).

    The core quantizes what `forward` returns and stores the result as the child `weight` of the
    transform's Code; `reconstruct(code, params)` undoes the transform on `params["weight"]`. On
    what `forward` returned it gives back the matrix that `forward` took, within float32 rounding.
    """

    CHILD: ClassVar[str] = "weight"

    @abstractmethod
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        """Transform a matrix.

        Args:
            weight: float32, (m, n), finite, contiguous; it must not be changed.
            options: an instance of `self.Options`.
            context: the layer at hand.

        Returns:
            The matrix to quantize, float32 of any shape up to four times as large, and a Code of
            shape (m, n) with what undoing needs.

        Raises:
            SkipLayer: this layer cannot be transformed; it stays dense.
        """
