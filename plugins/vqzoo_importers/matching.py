"""Which layer of a network a weight in a graph belongs to."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportTarget
from vqzoo_importers.tables import TableTensor


@dataclass(frozen=True)
class GraphLayer:
    """An operation of a graph that multiplies by a weight.

    Attributes:
        name: of the weight, for messages.
        names: names that may tell which layer it is: its own, and those of what it is decoded from.
        weight: in torch's layout.
        bias: of the operation, if it has one.
    """

    name: str
    names: frozenset[str]
    weight: NDArray[Any] | TableTensor
    bias: NDArray[Any] | TableTensor | None = None


def match_layers(
    path: Path, layers: Sequence[GraphLayer], target: ImportTarget
) -> dict[str, GraphLayer]:
    """Key of a weight -> the operation that multiplies by it.

    Names decide if each gives a layer of its own; otherwise the order does, and every layer of the
    network has to be there.

    Raises:
        VqzooError: there are more or fewer layers, or weights have other shapes; names the first.
    """
    if not layers:
        raise VqzooError(f"{path} has no layer with a constant weight")
    named = [_key_of(layer.names, target) for layer in layers]
    keys = [key for key in named if key is not None]
    if len(set(keys)) < len(layers):
        keys = list(target.layers)
        if len(keys) != len(layers):
            raise VqzooError(
                f"{path} has {len(layers)} layers whose names are not the network's, which has "
                f"{len(keys)}"
            )
    for key, layer in zip(keys, layers, strict=True):
        shape, expected = layer.weight.shape, target.shapes[key]
        if not shape or (shape[0], math.prod(shape[1:])) != (expected[0], math.prod(expected[1:])):
            raise VqzooError(f"{path}: {layer.name} has the shape {shape}, {key} has {expected}")
    return dict(zip(keys, layers, strict=True))


def _key_of(names: Iterable[str], target: ImportTarget) -> str | None:
    """The key whose layer's path begins one of the names, the longest such path."""
    best: tuple[int, str] | None = None
    for key, layer in target.layers.items():
        for name in names:
            if name == key or name.startswith((f"{key}_", f"{key}.", f"{layer.name}.")):
                best = max(best or (0, key), (len(layer.name), key))
    return None if best is None else best[1]
