"""The contract of a transform: what is done to a matrix before quantizing, and undone after it."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from vqzoo.plugin.code import Code
from vqzoo.plugin.method import LayerContext, Method


class Transform(Method):
    """Changes a matrix into one that quantizes better (a rotation, a scaling).

    The core quantizes what `forward` returns and stores the result as the child `weight` of the
    transform's Code; `reconstruct(code, params)` undoes the transform on `params["weight"]`.
    """

    CHILD: ClassVar[str] = "weight"

    @abstractmethod
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        """Transform a matrix.

        Args:
            weight: float32, (m, n), not to be changed.

        Returns:
            The matrix to quantize, and a Code of shape (m, n) with what undoing needs.
        """
