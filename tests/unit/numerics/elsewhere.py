"""A device that is not the CPU, for machines that have none: its tensors hide CPU tensors.

They have a device of their own, mix with no tensor of another one (numbers of no dimension
aside), and become numpy arrays only by way of `.cpu()`: what holds for CUDA's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")


class _Hidden(Tensor):
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "_Hidden":
        result = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        result.held = held
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Within it, `DEVICE` exists; `.to(DEVICE)` takes a tensor there."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
    hidden = [item for item in tensors if isinstance(item, _Hidden)]
    if hidden and function.name() not in ("aten::_to_copy", "aten::copy_"):
        others = [t for t in tensors if not isinstance(t, _Hidden) and t.dim() > 0]
        if others:
            raise RuntimeError(f"{function} got tensors of several devices")
    there = bool(hidden)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}

    def reveal(item: Any) -> Any:
        return item.held if isinstance(item, _Hidden) else item

    def hide(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        same = [t for t in hidden if t.held is item]  # operators in place return their argument
        return same[0] if same else _Hidden(item)

    result = function(*tree_map(reveal, args), **tree_map(reveal, kwargs))
    return tree_map(hide, result) if there else result
