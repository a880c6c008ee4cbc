"""What an ONNX file with codes says of its initializers, so that `vqzoo import` gets codes back.

The metadata `vqzoo.network` is JSON, deflated (zlib) and in base64. `codes` has, by state dict key,
the method, shape, facts, children and parts of each code: of integers the cardinality and their
planes (see `vqzoo.numerics.decoding.planes`), of floats the storage dtype and the exponent.
`tensors` has the initializer of each other tensor. Values stand in JSON themselves where folding
constants has left no initializer with them; one number in `tensors` stands for a tensor whose
values are all equal. `counters` has those of batch norms in the state dict's order, or one number
if all are equal; it is missing if all are 0.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.decoding.planes import to_planes
from vqzoo.plugin.code import Floats, MethodCode, Part

if TYPE_CHECKING:
    import onnx_ir

METADATA = "vqzoo.network"
_COUNTERS = "num_batches_tracked"  # of batch norms; eval mode does not read them
Array = NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """What a file says of itself.

    Attributes:
        text: of the metadata.
        initializers: the names of those that it mentions.
    """

    text: str
    initializers: frozenset[str]


class _NoInitializer(Exception):
    """A tensor is not among the initializers, and too large to stand in JSON."""


def network_contents(
    graph: "onnx_ir.Graph",
    codes: Mapping[str, MethodCode],
    state: Mapping[str, Tensor],
    most: int,
) -> Contents | None:
    """The metadata.

    Args:
        graph: as it is written.
        codes: key -> code of the weights that the graph decodes.
        state: the state dict of the network with decoded weights.
        most: values of a tensor that may stand in the text.

    Returns:
        None if a tensor is not among the initializers any more.
    """
    find = _Initializers(graph, most)
    try:
        content: dict[str, Any] = {
            "codes": {key: _code(code, find) for key, code in codes.items()},
            "tensors": {
                key: find.dense(tensor)
                for key, tensor in state.items()
                if key not in codes and key.rpartition(".")[2] != _COUNTERS
            },
        }
    except _NoInitializer:
        return None
    counters = [int(state[key]) for key in state if key.rpartition(".")[2] == _COUNTERS]
    if any(counters):
        content["counters"] = counters[0] if len({*counters}) == 1 else counters
    plain = json.dumps(content, separators=(",", ":")).encode()
    return Contents(base64.b64encode(zlib.compress(plain, 9)).decode(), frozenset(find.mentioned))


class _Initializers:
    """The names of a graph's initializers, by their values.

    Attributes:
        mentioned: the names that have been given.
    """

    def __init__(self, graph: "onnx_ir.Graph", most: int) -> None:
        self.mentioned: set[str] = set()
        self._most = most
        self._names: dict[bytes, str] = {}
        for name, value in graph.initializers.items():
            if value.const_value is not None and name is not None:
                values = np.asarray(value.const_value.numpy())
                self._names.setdefault(_content(values), name)

    def floats(self, tensor: Tensor) -> str | list[float]:
        """The initializer with these values, in whatever floating-point dtype, or the values."""
        return self._named(tensor.detach().float().numpy())

    def dense(self, tensor: Tensor) -> str | list[float]:
        """The same; or one value, if all are equal, as in biases of zeros, which the optimizer
        removes."""
        values = tensor.detach().float().numpy()
        if _content(values) not in self._names and values.size > self._most:
            first = float(values.flat[0])
            if np.isfinite(first) and (values == first).all():
                return [first]
        return self._named(values)

    def integers(self, plane: Tensor) -> str | list[int]:
        """The initializer with these bytes, or the values."""
        return self._named(plane.numpy())

    def _named(self, values: Array) -> Any:
        name = self._names.get(_content(values))
        if name is not None:
            self.mentioned.add(name)
            return name
        if values.size > self._most or not np.isfinite(values).all():
            raise _NoInitializer
        return values.reshape(-1).tolist()


def _content(values: Array) -> bytes:
    """What equal tensors have in common: their values, one after another; floats as float32."""
    integers = values.dtype.kind in "iu"
    plain = values if integers else values.astype(np.float32)
    return str(plain.dtype).encode() + np.ascontiguousarray(plain).tobytes()


def _code(compressed: MethodCode, find: _Initializers) -> dict[str, Any]:
    code = compressed.code
    return {
        "method": compressed.method,
        "shape": code.shape,
        "parts": {name: _part(part, find) for name, part in code.parts.items()},
        "facts": dict(code.facts),
        "children": {name: _code(child, find) for name, child in code.children.items()},
    }


def _part(part: Part, find: _Initializers) -> dict[str, Any]:
    if isinstance(part, Floats):
        return {
            "shape": list(part.stored.shape),
            "dtype": part.dtype,
            "exponent": part.exponent,
            "values": find.floats(part.stored),
        }
    return {
        "shape": list(part.values.shape),
        "cardinality": part.cardinality,
        "planes": [find.integers(plane) for plane in to_planes(part.values, part.bits)],
    }
