"""Architectures that are created without memory for weights that codes will take the place of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from vqzoo.compression.view import LAYER_CLASSES
from vqzoo.errors import ArtifactError
from vqzoo.models.random_values import NoRandomValues

_LARGE = 1 << 15  # values


def without_weights(create: Callable[[], nn.Module]) -> nn.Module:
    """A network whose layers have their weights on the meta device.

    A constructor that reads them, or keeps large tensors that are not parameters, is called again
    with memory for all.

    Args:
        create: makes the network.

    Raises:
        ArtifactError: from `create`, with memory.
    """
    try:
        with weights_on_meta(), NoRandomValues(), _LargeOnMeta() as large:
            model = create()
    except ArtifactError:
        return create()
    computed = any(buffer.is_meta for buffer in model.buffers())
    return create() if computed or large.are_kept() else model


@contextmanager
def weights_on_meta() -> Iterator[None]:
    """Put the weights of layers that this thread creates on the meta device, without memory.

    Weights that are assigned to a layer later, such as tied ones, stay where they are.
    """
    thread = get_ident()

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        if get_ident() != thread or name != "weight" or name in module._parameters:
            return None
        if isinstance(module, LAYER_CLASSES):
            return nn.Parameter(parameter.detach().to("meta"))
        return None

    hook = register_module_parameter_registration_hook(without_memory)
    try:
        yield
    finally:
        hook.remove()


class _LargeOnMeta(TorchFunctionMode):
    """Has `torch.empty` create large tensors on the meta device, in this thread.

    A weight that has memory until it is registered leaves more than time behind: the C library
    keeps for itself, from then on, what is released in blocks of up to that size.
    """

    def __init__(self) -> None:
        super().__init__()
        self._created: WeakSet[Tensor] = WeakSet()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is kwargs.get("out") is None:
            tensor = func(*args, **{**kwargs, "device": "meta"})
            if tensor.numel() >= _LARGE:
                self._created.add(tensor)
                return tensor
        return func(*args, **kwargs)

    def are_kept(self) -> bool:
        """Whether one of them lives on, other than as the data of a parameter."""
        return len(self._created) > 0


def allocate(model: nn.Module, coded: set[str]) -> None:
    """Give memory to the parameters on the meta device, except to those with keys in `coded`."""
    allocated: dict[nn.Parameter, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            key = f"{path}.{name}" if path else name
            if parameter is None or not parameter.is_meta or key in coded:
                continue
            if parameter not in allocated:  # a tied parameter is allocated once
                empty = torch.empty_like(parameter, device="cpu")
                allocated[parameter] = nn.Parameter(empty, requires_grad=False)
            module._parameters[name] = allocated[parameter]
