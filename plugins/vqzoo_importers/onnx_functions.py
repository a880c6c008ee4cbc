"""ONNX graphs whose local functions stand where they are called."""

from typing import Any

from vqzoo.errors import VqzooError, one_line

_MOST_NODES = 1_000_000  # of the graph that is made


def without_functions(model: Any) -> Any:
    """A model that calls no local functions and computes the same.

    Args:
        model: an onnx.ModelProto, possibly hostile.

    Raises:
        VqzooError: functions call one another, or the graph would be far too large.
    """
    if not model.functions:
        return model
    from onnx import inliner

    sizes = {(function.domain, function.name): len(function.node) for function in model.functions}
    for function in model.functions:
        if any((node.domain, node.op_type) in sizes for node in function.node):
            raise VqzooError(f"the function {function.name!r:.80} calls others, not imported")
    nodes = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    if nodes > _MOST_NODES:
        raise VqzooError(f"its functions stand for {nodes} operators, too many")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # of a hostile file: anything
        raise VqzooError(f"its functions cannot be read: {one_line(error)}") from None
