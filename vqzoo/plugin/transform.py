"""The contract of a transform: applied to a matrix before quantizing, undone after decoding."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from vqzoo.plugin.code import Code
from vqzoo.plugin.method import LayerContext, Method


class Transform(Method):
    """Turns a matrix into one that quantizes better (a rotation, a scaling).

    The core quantizes the matrix that `forward` returns and stores the result as the child
    `weight` of the transform's Code; `reconstruct(code, params)` undoes the transform on
    `params["weight"]`. Applied to exactly what `forward` returned, it gives the original matrix
    within float32 rounding.

    Attributes:
        CHILD: name of the child, "weight".
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
            The matrix to quantize, float32, of any 2-D shape with at most 4·m·n elements, and a
            Code of shape (m, n) with everything that undoing needs.

        Raises:
            SkipLayer: this layer cannot be transformed, and stays dense.
        """
