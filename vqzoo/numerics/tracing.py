"""Whether torch traces what runs now."""

import torch


def is_traced() -> bool:
    """Whether torch.export, torch.compile or torch.jit.trace records operations in this thread.

    They see torch's operations alone: what a kernel writes into a tensor is lost.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
