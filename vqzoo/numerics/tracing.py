"""Whether torch traces or transforms what runs now."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def is_traced() -> bool:
    """Whether operations in this thread are recorded, or transformed by `torch.func`.

    Both see torch's operations alone: what a kernel writes into a tensor is lost.
    """
    return is_recorded() or is_transformed()


def is_recorded() -> bool:
    """Whether torch.export, torch.compile or torch.jit.trace records operations in this thread."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether this runs within a transform of `torch.func`, such as `vmap` or `jvp`.

    What torch's operations return there may be a wrapper without memory, even of constants.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def holds_values(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values of its own, and is no wrapper of a transform of `torch.func`."""
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Compute constants: within the block, no transform of `torch.func` sees operations."""
    stack: list[Any] = []
    try:
        while is_transformed():
            stack.append(torch._C._functorch.pop_dynamic_layer_stack())
        yield
    finally:
        for layer in reversed(stack):
            torch._C._functorch.push_dynamic_layer_stack(layer)
