"""A fake device for machines that have only a CPU: its tensors wrap CPU tensors.

As with CUDA, they cannot be combined with tensors of another device (except for those without
dimensions), and become numpy arrays only after `.cpu()`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")


class _FakeTensor(Tensor):
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_FakeTensor":
        result = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        result.inner = inner
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class FakeDevice(TorchDispatchMode):
    """While it is active, `DEVICE` exists and `.to(DEVICE)` moves a tensor there."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
    fakes = [item for item in tensors if isinstance(item, _FakeTensor)]
    if fakes and function.name() not in ("aten::_to_copy", "aten::copy_"):
        others = [t for t in tensors if not isinstance(t, _FakeTensor) and t.dim() > 0]
        if others:
            raise RuntimeError(f"{function} got tensors of several devices")
    on_device = bool(fakes)
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}

    def unwrap(item: Any) -> Any:
        return item.inner if isinstance(item, _FakeTensor) else item

    def wrap(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        same = [t for t in fakes if t.inner is item]  # in-place operators return their argument
        return same[0] if same else _FakeTensor(item)

    result = function(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    return tree_map(wrap, result) if on_device else result
