"""From a network to a program of ExecuTorch: what XNNPACK takes, and operators of its own."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.pte.convolution import DecodedConvolutions
from vqzoo.network.export.traces import remove_traces


@dataclass(frozen=True)
class Lowered:
    """A program of ExecuTorch.

    Attributes:
        buffer: the bytes of the file.
        delegates: parts that XNNPACK runs.
        delegated: operations in them.
        portable: operator -> how many of its operations ExecuTorch runs itself.
    """

    buffer: bytes
    delegates: int
    delegated: int
    portable: dict[str, int]


def lower(model: nn.Module, images: Tensor) -> Lowered:
    """Compile a network for the shape of some images.

    Nothing on this way folds constants, so that weights which the network decodes stay codes.

    Args:
        model: the network, its weights dense or decoded by its own operations.
        images: an example.

    Raises:
        VqzooError: torch cannot export the network, or ExecuTorch cannot compile it.
    """
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        # What has constant weights first; then products with weights that are computed.
        partitioners = [
            XnnpackPartitioner(),
            XnnpackPartitioner(force_non_static_weights_for_f32_linear=True),
        ]
        try:
            with DecodedConvolutions(), torch.no_grad():
                program = torch.export.export(model, (images,))
            remove_traces(program)
            with torch.no_grad():
                program = program.run_decompositions(_decompositions())
                remove_traces(program)
                edge = to_edge_transform_and_lower(program, partitioner=partitioners)
                graph_module = edge.exported_program().graph_module
                counts = _counts(graph_module)
                return Lowered(edge.to_executorch().buffer, *counts)
        except Exception as error:
            raise VqzooError(
                f"ExecuTorch cannot compile this network: {one_line(error)}"
            ) from error


def _decompositions() -> dict[Any, Any]:
    """Substitutes for operators that ExecuTorch has not, or only as a slow one."""
    aten: Any = torch.ops.aten
    return {aten.exp2.default: _exp2, aten.index.Tensor: _looked_up}


def _exp2(exponents: Tensor) -> Tensor:
    return torch.pow(2.0, exponents)


def _looked_up(table: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Rows of a table by an operator that copies them whole."""
    rows = indices[0]
    if len(indices) != 1 or rows is None or rows.dtype == torch.bool:
        return NotImplemented
    flat = table.reshape(len(table), -1)
    return F.embedding(rows, flat).reshape(*rows.shape, *table.shape[1:])


def _counts(module: torch.fx.GraphModule) -> tuple[int, int, dict[str, int]]:
    """Parts that XNNPACK runs, the operations in them, and all others by operator."""
    portable: Counter[str] = Counter()
    delegates = delegated = 0
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "__name__", str(node.target))
        if name == "executorch_call_delegate":
            part: Any = getattr(module, node.args[0].target)
            delegates += 1
            delegated += len(_operations(part.original_module.graph_module.graph))
    for name in _operations(module.graph):
        portable[name] += 1
    return delegates, delegated, dict(sorted(portable.items()))


def _operations(graph: torch.fx.Graph) -> list[str]:
    """The operators of a graph, one for each operation that computes tensors."""
    names = [
        str(node.target.__name__)
        for node in graph.nodes
        if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor)
    ]
    return [name for name in names if name not in ("getitem", "executorch_call_delegate")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of ExecuTorch and of what it imports."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
