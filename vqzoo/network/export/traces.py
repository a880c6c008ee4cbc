"""What torch.export notes of each operation's origin, which outweighs small networks."""

from torch.export import ExportedProgram

_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


def remove_traces(program: ExportedProgram) -> None:
    """Forget where in the source the operations of a program stand, in place."""
    for node in program.graph.nodes:
        for trace in _TRACES:
            node.meta.pop(trace, None)
