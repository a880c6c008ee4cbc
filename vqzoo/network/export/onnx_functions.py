"""Local functions of ONNX for what many layers decode their weights by.

In small networks, the operators that decode outweigh the codes. A function's body stands in the
file once, in standard operators, and each layer calls it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

DOMAIN = "vqzoo"
_LEAST = 3  # operators that a function is worth
_CALL, _BODY = 24, 40  # bytes that a call and a function take, names and operators apart
_EMBEDDED = 64  # bytes of a constant that stands in a function, and is no input of it
_SHARE = 0.03  # of the file, that functions must save: not all tools read them


@dataclass(frozen=True)
class _Node:
    """A node of the graph.

    Attributes:
        operator: its domain, name, attributes and number of outputs.
        inputs: names.
        outputs: names.
        bytes: that it takes in the file.
    """

    operator: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int

    @classmethod
    def of(cls, node: Any) -> "_Node":
        """A node of an onnx.NodeProto."""
        attributes = sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute)
        operator = (node.domain, node.op_type, len(node.output), *attributes)
        return cls(operator, tuple(node.input), tuple(node.output), node.ByteSize())


@dataclass
class _Cone:
    """The operators that compute one value from initializers, and serve nothing else.

    Attributes:
        root: the place of the node that returns the value.
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
    calls: dict[int, Any] = {}
    gone: set[int] = set()
    for cones in _equal_cones(graph):
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


def _equal_cones(graph: Any) -> Iterator[list[_Cone]]:
    """Yield cones that do the same, those first that a function saves most for.

    A cone is what one value is computed by, and serves nothing else: a weight, or a step to it.
    """
    nodes = [_Node.of(node) for node in graph.node]
    made, roots = _constant_nodes(nodes, {tensor.name for tensor in graph.initializer})
    if sum(nodes[place].bytes for place in {*made.values()}) < _SHARE * graph.ByteSize():
        return
    done: set[int] = set()  # roots of cones that are in functions
    while True:
        equal: dict[tuple[Any, ...], list[_Cone]] = {}
        for cone in _open_cones(nodes, made, roots, done):
            equal.setdefault(cone.shape, []).append(cone)
        best = max(equal.values(), key=lambda cones: _saved(cones, nodes), default=[])
        if not best or _saved(best, nodes) <= 0:
            return
        yield best
        roots |= dict.fromkeys(cone.root for cone in best)
        done |= {cone.root for cone in best}


def _open_cones(
    nodes: Sequence[_Node], made: Mapping[str, int], roots: dict[int, None], done: set[int]
) -> Iterator[_Cone]:
    """All cones of nodes that are in no function yet."""
    owners = _owners(nodes, made, roots)
    below: dict[int, set[int]] = {}  # the nodes of the same root that a node needs, and itself
    readers: dict[int, set[int]] = {}
    for place in sorted(owners):
        below[place] = {place}
        for name in nodes[place].inputs:
            other = made.get(name)
            if other is not None and owners[other] == owners[place]:
                below[place] |= below[other]
                readers.setdefault(other, set()).add(place)
    for place, needed in below.items():
        if owners[place] in done or len(needed) < _LEAST:
            continue
        if all(readers[other] <= needed for other in needed - {place}):
            owned = {name: at for at in needed for name in nodes[at].outputs}
            yield _described(place, nodes, owned)


def _constant_nodes(
    nodes: Sequence[_Node], initializers: set[str]
) -> tuple[dict[str, int], dict[int, None]]:
    """What follows from initializers alone, with the place of the node that computes it; and the
    places of those nodes whose results others read."""
    made: dict[str, int] = {}
    roots: dict[int, None] = {}
    for place, node in enumerate(nodes):
        constant = all(not name or name in initializers or name in made for name in node.inputs)
        if constant and node.inputs:
            made |= dict.fromkeys(node.outputs, place)
        else:
            roots |= dict.fromkeys(made[name] for name in node.inputs if name in made)
    return made, roots


def _owners(
    nodes: Sequence[_Node], made: Mapping[str, int], roots: dict[int, None]
) -> dict[int, int]:
    """The root that each constant node serves. What several roots need becomes a root."""
    while True:
        owners: dict[int, set[int]] = {}
        for root in roots:
            waiting = [root]
            while waiting:
                place = waiting.pop()
                if root in owners.setdefault(place, set()):
                    continue
                owners[place].add(root)
                reads = (made[name] for name in nodes[place].inputs if name in made)
                waiting += [other for other in reads if other not in roots]
        shared = {
            other: None
            for place, serves in owners.items()
            for name in nodes[place].inputs
            if (other := made.get(name, place)) not in roots
            and len(owners[other]) > 1
            and owners[other] != serves
        }
        if not shared:
            return {place: min(serves) for place, serves in owners.items()}
        roots |= shared


def _saved(cones: Sequence[_Cone], nodes: Sequence[_Node]) -> int:
    """About how many bytes a function saves."""
    body = sum(nodes[place].bytes for place in cones[0].nodes)
    call = _CALL + sum(len(name) + 2 for name in cones[0].inputs)
    return (len(cones) - 1) * body - len(cones) * call - _BODY


def _described(root: int, nodes: Sequence[_Node], owned: Mapping[str, int]) -> _Cone:
    """The cone of a root, in an order that follows from what its operators do."""
    cone = _Cone(root)
    waiting = [root]
    done: set[int] = set()
    while waiting:
        place = waiting[-1]
        before = [owned[name] for name in nodes[place].inputs if name in owned]
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
        node = nodes[place]
        for name in node.inputs:
            if name and name not in owned and name not in cone.inputs:
                cone.inputs.append(name)
        reads = [
            numbers[name] if name in owned else ~cone.inputs.index(name) if name else None
            for name in node.inputs
        ]
        for name in node.outputs:
            numbers[name] = len(numbers)
        shape.append((node.operator, *reads))
    cone.shape = (tuple(shape), len(cone.inputs))
    return cone


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
    outputs = [names[entry] for entry in graph.node[cone.root].output]
    imports = [entry for entry in model.opset_import if not entry.domain]
    return onnx.helper.make_function(DOMAIN, name, inputs, outputs, body, imports)
