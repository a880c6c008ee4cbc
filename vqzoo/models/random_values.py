"""Constructors without the random values that nothing keeps."""

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Torch takes 0.6 ms for each call on the meta device, and imports the compiler of `torch.compile`
# for the first one, which takes 0.6 s. None of them changes the shape of its first argument.
_KEEP_SHAPES = {
    nn.functional.batch_norm,  # vision transformers with a convolutional stem run it once
    nn.functional.relu,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    Tensor.add_,
    Tensor.clamp_,
    Tensor.erfinv_,
    Tensor.mul_,
    Tensor.normal_,
    Tensor.uniform_,
}


class NoRandomValues(TorchFunctionMode):
    """Draws and transforms no random values for tensors on the meta device, in this thread.

    They would hold none.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _KEEP_SHAPES:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))
