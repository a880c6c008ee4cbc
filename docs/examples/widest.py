"""A layer selector: `widest:N` selects the N layers with the most inputs."""

from collections.abc import Mapping, Sequence

from vqzoo.errors import UsageError
from vqzoo.plugin import LayerInfo, LayerSelector, hookimpl

vqzoo_contract = 1


class Widest(LayerSelector):
    """The selector of `--layers widest:2`."""

    name = "widest"
    summary = "widest:N, the N layers with the most inputs"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """Map the name of each selected layer to the reason."""
        count = text.partition(":")[2]
        if not count.isdecimal():
            raise UsageError(f"{text!r} has no number of layers: write widest:N, as in widest:2")
        widest = sorted(layers, key=lambda layer: -layer.matrix_shape[1])[: int(count)]
        return {layer.name: f"{layer.matrix_shape[1]} inputs" for layer in widest}


@hookimpl
def vqzoo_layer_selectors() -> list[LayerSelector]:
    """Register the selector."""
    return [Widest()]
