"""The contract of a layer selector."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class LayerInfo:
    """One layer that could be compressed.

    Attributes:
        name: module path, "features.3"; "attn.in_proj_weight" for a weight that is not called
            `weight`.
        kind: "linear", "conv1d" to "conv3d", "conv_transpose1d" to "conv_transpose3d",
            "embedding" or "attention" (the input projections of nn.MultiheadAttention).
        shape: the weight's shape.
        groups: groups of a convolution, 1 otherwise.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(m, n) of the weight as a matrix, all axes but the first flattened: (out,
        in/groups·kernel), of a transposed convolution (in, out/groups·kernel), of an embedding
        (entries, width)."""
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class LayerSelector(ABC):
    """Chooses layers. Users write `name` or `name:argument`; the core combines and negates choices.

    Attributes:
        name: what users type, of a-z, 0-9, - and _.
        summary: one line for the help.
        catch_all: whether `accepts` is true for any text; such a selector is tried only after all
            others have declined.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    catch_all: ClassVar[bool] = False

    def accepts(self, text: str) -> bool:
        """Whether this selector reads `text`: by default if it is `name` or `name:argument`."""
        return text == self.name or text.startswith(self.name + ":")

    @abstractmethod
    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """Choose among `layers`.

        Args:
            layers: all layers that could be compressed, in the model's order.
            text: what the user wrote, "largest:3".

        Returns:
            Name of each chosen layer -> the reason, in words.

        Raises:
            UsageError: `text` is not valid for this selector.
        """
