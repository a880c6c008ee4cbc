"""What quantizers and transforms share: a name, validated options, and decoding."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from vqzoo.plugin.code import Code, MethodCode


class Options(BaseModel):
    """Base of every method's options.

    Fields are what the command line takes as `-o name=value`; give each a `Field(description=...)`
    and bounds. Values are immutable, unknown names are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SkipLayer(Exception):
    """Raised by a method that cannot compress a layer: it stays dense, with this reason."""


@dataclass(frozen=True)
class LayerContext:
    """What a method may know about the layer at hand.

    Attributes:
        layer: module path, "classifier.1".
        kind: "linear", "conv1d" or "conv2d".
        shape: shape of the weight before it was viewed as a matrix.
        groups: groups of a convolution, 1 otherwise.
        seed: seed of this layer: the same for the same run seed and layer name.
        device: where to compute.
        note: takes a line that the user should see (an option that was clamped).
        progress: takes (done, total) steps of this layer's work.
        quantize: compresses a matrix by another registered method, for `Code.children`:
            `quantize("pq", matrix, {"k": 16})`.
        inputs: what the layer saw of calibration data, where there was any: float32, (r, n), rows
            drawn from the vectors that the layer multiplies its matrix with; the groups of a
            convolution are drawn from alike. Their second moment is `inputs.T @ inputs / r`.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    seed: int
    device: torch.device
    note: Callable[[str], None]
    progress: Callable[[int, int], None]
    quantize: Callable[[str, Tensor, Mapping[str, Any]], MethodCode]
    inputs: Tensor | None = None


class Method(ABC):
    """Base of `Quantizer` and `Transform`.

    Attributes:
        name: what users type and artifacts record, of a-z, 0-9 and -.
        version: of the method's own stored form; raise it when old artifacts need another decoder.
        summary: one line for `vqzoo methods`.
        source: the paper and equation.
        Options: the method's options.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    Options: ClassVar[type[Options]] = Options

    @abstractmethod
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Rebuild the matrix in plain differentiable torch.

        Args:
            code: what `quantize` or `forward` made.
            params: every float part as float32, by name (perhaps requiring gradients, perhaps
                changed by training), and every child's rebuilt matrix under the child's name.

        Returns:
            float32 tensor of shape `code.shape`.
        """

    def check(self, code: Code) -> None:  # noqa: B027 - most methods need no more than the core's
        """Refuse a code that `quantize` or `forward` would not make, before it is decoded.

        A stored code may come from anyone. The core has checked that codes are below their
        cardinality and floats finite; it cannot know which shapes and facts fit together, and
        parts that are broadcast or expanded could fill the memory. See `Code.require_floats`.

        Raises:
            ValueError: parts or facts that are missing or do not fit `code.shape`.
        """

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The fast path of `reconstruct`, without gradients, into `out` where it is given."""
        with torch.no_grad():
            matrix = self.reconstruct(code, params)
        if matrix.shape != code.shape:
            raise ValueError(f"{self.name} rebuilt {tuple(matrix.shape)}, not {code.shape}")
        return matrix if out is None else out.copy_(matrix)

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Multiply by the matrix: x·Wᵀ, for a network that runs from its codes.

        Worth overriding where the product is cheaper than the matrix, as with thin factors. It
        must agree with `reconstruct` and be differentiable in `params` and `x`.

        Args:
            code: what `quantize` or `forward` made.
            params: as `reconstruct` takes them.
            x: float32, (..., n).

        Returns:
            float32, (..., m).
        """
        return x @ self.reconstruct(code, params).T

    @property
    def applies(self) -> bool:
        """Whether the method has an `apply` of its own."""
        return type(self).apply is not Method.apply

    def trainable(self, code: Code) -> dict[str, Tensor]:
        """The parts that fine-tuning may change: all float parts, unless a method says less."""
        return code.floats()
