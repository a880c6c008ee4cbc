"""The selector of the largest layers."""

from collections.abc import Mapping, Sequence

from vqzoo.errors import UsageError
from vqzoo.plugin import LayerInfo, LayerSelector


class Largest(LayerSelector):
    """`largest:N`."""

    name = "largest"
    summary = "largest:N, the N layers with the most weights"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """The N layers with the most weights; ties go to the first."""
        argument = text.partition(":")[2]
        if not argument.isdecimal() or int(argument) < 1:
            raise UsageError(f"{text!r}: write largest:N with N at least 1, as in largest:3")
        chosen = sorted(layers, key=lambda layer: -layer.numel)[: int(argument)]
        return {layer.name: f"among the {argument} largest" for layer in chosen}
