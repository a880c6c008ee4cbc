"""Local functions of ONNX for what many layers decode their weights by.

In small networks, the operators that decode outweigh the codes. A function's body stands in the
file once, in standard operators, and each layer calls it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

DOMAIN = "vqzoo"
_LEAST = 3  # operators that a function is worth
_EMBEDDED = 64  # bytes of a constant that stands in a function, and is no input of it
_SHARE = 0.03  # of the file, that functions must save: not all tools read them


@dataclass
class _Cone:
    """The operators that compute one weight from initializers, and nothing else.

    Attributes:
        root: the place of the node that returns the weight.
        nodes: places of the nodes, each after those that it reads.
        inputs: names of what they read, in the order in which they read it.
        shape: equal for cones that do the same with other inputs.
    """

    root: int
    nodes: list[int] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    shape: tuple[Any, ...] = ()


def share_decoding(model: Any, names: Mapping[str, str], kept: Iterable[str]) -> Any:
    """Make functions of what several weights are decoded by, if that saves much of the file.

    Args:
        model: an onnx.ModelProto.
        names: the beginning of initializers' names -> the method that decodes them, after which
            functions are called.
        kept: initializers that must stay in the graph.

    Returns:
        A model that computes the same.
    """
    import onnx

    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    graph = shared.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    groups: dict[tuple[Any, ...], list[_Cone]] = {}
    for cone in _cones(graph):
        groups.setdefault(cone.shape, []).append(cone)
    calls: dict[int, Any] = {}
    gone: set[int] = set()
    for cones in groups.values():
        if len(cones) < 2 or len(cones[0].nodes) < _LEAST:
            continue
        embedded = _equal_constants(cones, constants, set(kept))
        name = _name(cones[0], names, {function.name for function in shared.functions})
        function = _function(name, graph, cones[0], embedded, shared)
        shared.functions.append(function)
        for cone in cones:
            gone |= set(cone.nodes)
            root = graph.node[cone.root]
            given = [name for place, name in enumerate(cone.inputs) if place not in embedded]
            calls[cone.root] = onnx.helper.make_node(
                function.name, given, list(root.output), root.name, domain=DOMAIN
            )
    nodes = [calls.get(place, node) for place, node in enumerate(graph.node)
             if place not in gone or place in calls]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {*kept}
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    shared.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    saved = model.ByteSize() - shared.ByteSize()
    return shared if saved > _SHARE * model.ByteSize() else model


def _cones(graph: Any) -> list[_Cone]:
    """Those of all weights; an operator whose result several of them use is in none."""
    made: dict[str, int] = {}  # what follows from initializers -> the node that computes it
    initializers = {tensor.name for tensor in graph.initializer}
    roots: dict[int, None] = {}
    for place, node in enumerate(graph.node):
        constant = all(not name or name in initializers or name in made for name in node.input)
        if constant and node.input:
            made |= dict.fromkeys(node.output, place)
        else:
            roots |= dict.fromkeys(made[name] for name in node.input if name in made)
    owners: dict[int, set[int]] = {}
    for root in roots:
        waiting = [root]
        while waiting:
            place = waiting.pop()
            if root not in owners.setdefault(place, set()):
                owners[place].add(root)
                waiting += [made[name] for name in graph.node[place].input if name in made]
    owned = {name: place for name, place in made.items() if len(owners.get(place, ())) == 1}
    cones = [_Cone(root) for root in roots if len(owners[root]) == 1]
    for cone in cones:
        _describe(cone, graph, owned)
    return cones


def _describe(cone: _Cone, graph: Any, owned: Mapping[str, int]) -> None:
    """Fill in a cone from its root, in an order that follows from what its operators do."""
    waiting = [cone.root]
    done: set[int] = set()
    while waiting:
        place = waiting[-1]
        before = [owned[name] for name in graph.node[place].input if name in owned]
        if missing := [other for other in before if other not in done]:
            waiting += reversed(missing)
            continue
        waiting.pop()
        if place not in done:
            done.add(place)
            cone.nodes.append(place)
    numbers: dict[str, int] = {}
    shape: list[Any] = []
    for place in cone.nodes:
        node = graph.node[place]
        for name in node.input:
            if name and name not in owned and name not in cone.inputs:
                cone.inputs.append(name)
        reads = [
            numbers[name] if name in owned else ~cone.inputs.index(name) if name else None
            for name in node.input
        ]
        for name in node.output:
            numbers[name] = len(numbers)
        attributes = [entry.SerializeToString(deterministic=True) for entry in node.attribute]
        shape.append((node.domain, node.op_type, *reads, len(node.output), *sorted(attributes)))
    cone.shape = (tuple(shape), len(cone.inputs))


def _equal_constants(
    cones: Sequence[_Cone], constants: Mapping[str, Any], kept: set[str]
) -> dict[int, Any]:
    """The places of inputs that are the same small initializer in all cones, and its values."""
    equal = {}
    for place, name in enumerate(cones[0].inputs):
        tensor = constants.get(name)
        small = tensor is not None and name not in kept and len(tensor.raw_data) <= _EMBEDDED
        if small and all(cone.inputs[place] == name for cone in cones):
            equal[place] = tensor
    return equal


def _name(cone: _Cone, names: Mapping[str, str], taken: set[str]) -> str:
    """The name of a function: that of a method, and a number if there are several."""
    methods = [name for key, name in names.items() for at in cone.inputs if at.startswith(key)]
    method = re.sub(r"\W", "_", [*methods, "decode"][0].rpartition(":")[2])
    numbered = (f"{method}_{i}" for i in count(2))
    return next(name for name in chain([method], numbered) if name not in taken)


def _function(name: str, graph: Any, cone: _Cone, embedded: Mapping[int, Any], model: Any) -> Any:
    """The function of a cone, with short names."""
    import onnx

    names: dict[str, str] = {}
    body = []
    for place, source in enumerate(cone.inputs):
        names[source] = f"i{place}"
        if place in embedded:
            value = onnx.TensorProto()
            value.CopyFrom(embedded[place])
            value.ClearField("name")
            body.append(onnx.helper.make_node("Constant", [], [names[source]], value=value))
    for place in cone.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(graph.node[place])
        node.ClearField("name")
        for entry in node.output:
            names[entry] = f"v{len(names)}"
        node.input[:] = [names.get(entry, "") for entry in node.input]
        node.output[:] = [names[entry] for entry in node.output]
        body.append(node)
    inputs = [f"i{place}" for place in range(len(cone.inputs)) if place not in embedded]
    (output,) = graph.node[cone.root].output
    imports = [entry for entry in model.opset_import if not entry.domain]
    return onnx.helper.make_function(DOMAIN, name, inputs, [names[output]], body, imports)
