"""Weights, biases and batch norms of a graph as the contents of a network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, ImportTarget, MethodCode
from vqzoo_importers.coded.factors import FactoredTensor, factored_code
from vqzoo_importers.coded.residuals import ResidualTensor, residual_code
from vqzoo_importers.coded.sparse import SparseTensor, sparse_code
from vqzoo_importers.coded.tables import TableTensor, table_code
from vqzoo_importers.norms import identity_norm, norm_after

Coded = TableTensor | ResidualTensor | SparseTensor | FactoredTensor
Constant = NDArray[Any] | Coded
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class GraphLayer:
    """An operation of a graph that multiplies by a weight.

    Attributes:
        name: of the weight, for messages.
        names: names that may tell which layer it is: its own, and those of what it is decoded from.
        weight: in torch's layout.
        bias: of the operation, if it has one.
        computed: whether the graph computes the weight; a weight that is none of codes is said to
            stay dense, then.
    """

    name: str
    names: frozenset[str]
    weight: Constant
    bias: Constant | None = None
    computed: bool = False


@dataclass(frozen=True)
class GraphNorm:
    """A batch norm of a graph.

    Attributes:
        names: names that may tell which one it is.
        eps: what is added to the variance.
        tensors: weight, bias, mean and variance.
    """

    names: frozenset[str]
    eps: float
    tensors: tuple[Constant, ...]


def graph_network(
    path: Path,
    layers: Sequence[GraphLayer],
    norms: Sequence[GraphNorm],
    dense: Mapping[str, Constant],
    target: ImportTarget,
    licence: str | None,
    origin: str | None = None,
    notes: Sequence[str] = (),
) -> ImportedNetwork:
    """Give each part of a graph its place in the network.

    Args:
        path: the file, for messages.
        layers: in the graph's order.
        norms: in the graph's order.
        dense: key -> constant of that name.
        target: the network.
        licence: what the file says of it.
        origin: what the file says of it.
        notes: lines for the user.

    Raises:
        VqzooError: the graph does not fit the network.
    """
    codes: dict[str, MethodCode] = {}
    tensors: dict[str, Tensor] = {}
    lines = list(notes)
    for key, layer in _match_layers(path, layers, target).items():
        weight = layer.weight.reshape(target.shapes[key])
        code = _code(weight)
        if code is not None:
            codes[key] = code
        else:
            tensors[key] = _tensor(weight)
            if isinstance(weight, Coded):
                lines.append(f"{key} stays dense: no method here has such codes.")
            elif layer.computed:
                lines.append(f"{key} is computed in a way that no method here has: it stays dense.")
        tensors |= _bias(path, key, layer, target)
    tensors |= _norm_tensors(path, norms, target)
    for key, value in dense.items():
        if key not in codes and tuple(value.shape) == target.shapes.get(key):
            tensors.setdefault(key, _tensor(value))
    return ImportedNetwork(codes, tensors, licence, origin, tuple(lines))


def _code(weight: Constant) -> MethodCode | None:
    if isinstance(weight, TableTensor):
        return table_code(weight)
    if isinstance(weight, FactoredTensor):
        return factored_code(weight)
    if isinstance(weight, ResidualTensor):
        return residual_code(weight)
    return sparse_code(weight) if isinstance(weight, SparseTensor) else None


def _tensor(value: Constant) -> Tensor:
    values = value.values() if isinstance(value, Coded) else value
    return torch.from_numpy(np.array(values, order="C"))


def _bias(path: Path, key: str, layer: GraphLayer, target: ImportTarget) -> dict[str, Tensor]:
    """A layer's bias; where the network has none, that of a batch norm which was folded."""
    if layer.bias is None:
        return {}
    bias, name = _tensor(layer.bias), f"{key.removesuffix('.weight')}.bias"
    if name in target.shapes:
        return {name: bias}
    norm = norm_after(key, target)
    if norm is None or bias.shape != target.shapes[f"{norm}.bias"]:
        raise VqzooError(f"{path}: {layer.name} has a bias, and {key} of the network has none")
    return identity_norm(norm, bias, target.norms[norm])


def _norm_tensors(
    path: Path, norms: Sequence[GraphNorm], target: ImportTarget
) -> dict[str, Tensor]:
    """Batch norms of the graph, by their names or in order."""
    named = [_norm_path(norm.names, target) for norm in norms]
    paths = [name for name in named if name is not None]
    if len(set(paths)) < len(norms):
        paths = list(target.norms)
        if len(norms) != len(paths):
            raise VqzooError(f"{path} has {len(norms)} batch norms, the network {len(paths)}")
    tensors: dict[str, Tensor] = {}
    for norm, name in zip(norms, paths, strict=True):
        eps = target.norms[name]
        if not math.isclose(norm.eps, eps, rel_tol=1e-4) and norm.eps != np.float16(eps):
            raise VqzooError(
                f"{path}: {name} has eps={norm.eps:g}, the network's {target.norms[name]:g}"
            )
        for field, value in zip(_NORM, norm.tensors, strict=True):
            tensors[f"{name}.{field}"] = _tensor(value)
    return tensors


def _norm_path(names: Iterable[str], target: ImportTarget) -> str | None:
    paths = [path for path in target.norms for name in names if name.startswith(path + ".")]
    return max(paths, key=len, default=None)


def _match_layers(
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
    named = [key_of(layer.names, target) for layer in layers]
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


def key_of(names: Iterable[str], target: ImportTarget) -> str | None:
    """The key whose layer's path begins one of the names, the longest such path."""
    best: tuple[int, str] | None = None
    for key, layer in target.layers.items():
        for name in names:
            if name == key or name.startswith((f"{key}_", f"{key}.", f"{layer.name}.")):
                best = max(best or (0, key), (len(layer.name), key))
    return None if best is None else best[1]
