"""Statistics of batch norms, estimated again."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

from vqzoo.calibration.passes import Passes


def has_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm with running statistics."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def with_new_statistics(network: nn.Module, norms: Iterable[str], passes: Passes) -> nn.Module:
    """A copy of a network whose batch norms have the average of their batches' statistics.

    A batch of one image has none, where norms see one value of a channel.

    Args:
        network: in eval mode; it is not changed.
        norms: names of the batch norms.
        passes: runs networks on the images; its plan has 1 pass for this.

    Returns:
        The copy; the network itself where no batch has statistics.
    """
    changed = copy.deepcopy(network)
    modules: list[Any] = [changed.get_submodule(name) for name in norms]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in modules]
    for norm in modules:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    batches = sum(1 for _ in passes.run(changed, least=2))
    for norm, (momentum, tracked) in zip(modules, kept, strict=True):
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(tracked)
        norm.eval()
    return changed if batches else network
