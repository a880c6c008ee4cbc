"""Networks out of the modules that torch and timm wrap around them.

`DataParallel`, `DistributedDataParallel`, `torch.compile` and averages of weights put a network
behind an attribute of their own: its config is out of sight, and the keys of its state dict begin
with "module." or "_orig_mod.".
"""

import copy
import sys
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from vqzoo.errors import UsageError
from vqzoo.module_checks import check_network

_TIMM_AVERAGES = ("ModelEma", "ModelEmaV2", "ModelEmaV3")


def as_network(model: Any) -> nn.Module:
    """The network inside any wrappers around it; the network itself where there are none.

    Raises:
        UsageError: `model` is not a module, has parameters or buffers without values, or its
            parameters are sharded.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return check_network(model)


def without_wrappers(model: Any) -> nn.Module:
    """`as_network`, with the wrappers around parts of the network taken off as well.

    Where parts are wrapped, the result is a copy that shares all parameters and buffers.
    """
    network = as_network(model)
    wrapped = [module for module in network.modules() if _inside(module) is not None]
    if not wrapped:
        return network
    # What the memo has for an object takes the place of a copy.
    tensors = [*network.parameters(), *network.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    for module in reversed(wrapped):  # the innermost ones come last
        memo[id(module)] = copy.deepcopy(as_network(module), memo)
    return copy.deepcopy(network, memo)


def _inside(model: Any) -> Any:
    """What a wrapper holds; None for anything else."""
    if isinstance(model, DataParallel | DistributedDataParallel | AveragedModel):
        return model.module
    if isinstance(model, _loaded_class("torch._dynamo.eval_frame", "OptimizedModule")):
        return model._orig_mod
    if isinstance(model, _loaded_class("torch.distributed.fsdp", "FullyShardedDataParallel")):
        raise UsageError(
            "the parameters of a FullyShardedDataParallel are sharded: give vqzoo a network that "
            "loaded its full state dict"
        )
    for name in _TIMM_AVERAGES:
        if isinstance(model, _loaded_class("timm.utils.model_ema", name)):
            return model.ema if name == "ModelEma" else model.module
    return None


def _loaded_class(module: str, name: str) -> Any:
    """A class of a module, or () where nothing has imported the module, so nothing is of it."""
    return getattr(sys.modules.get(module), name, ())
