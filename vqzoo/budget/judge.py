"""Compressed networks as they would be stored, judged on held-out images."""

from collections.abc import Mapping

from torch import Tensor, nn

from vqzoo.budget.held_out import HeldOut
from vqzoo.budget.task import Task
from vqzoo.calibration.repair import repair_with
from vqzoo.compression.norms.folding import merge_norms
from vqzoo.compression.plugin_calls import decode_new
from vqzoo.compression.rest import with_rounded_rest
from vqzoo.compression.view import copy_with_weights, weight_key
from vqzoo.plugin.code import MethodCode
from vqzoo.progress import Watcher
from vqzoo.report.budget import HeldOutRecord


class Judge:
    """Says how far networks are from the dense one; nothing without images held out."""

    def __init__(self, task: Task, watcher: Watcher) -> None:
        self._task = task
        self._watcher = watcher
        self._held_out: HeldOut | None = None
        if task.held_out is not None:
            self._held_out = HeldOut(task.model, task.held_out, task.device, watcher)

    def judge(
        self, codes: Mapping[str, MethodCode], finetuned: nn.Module | None = None
    ) -> HeldOutRecord | None:
        """The network on the images held out, repaired if the task repairs it.

        Args:
            codes: layer -> code.
            finetuned: the network, decoded, if it was fine-tuned; it is not repaired then.
        """
        if self._held_out is None:
            return None
        task = self._task
        network = self._repaired(codes) if finetuned is None else finetuned
        if task.norms is not None:
            network = merge_norms(network)
        if task.rest == "float16":
            network = with_rounded_rest(network, [weight_key(name) for name in codes]).module
        return self._held_out.judge(network)

    def _repaired(self, codes: Mapping[str, MethodCode]) -> nn.Module:
        task = self._task
        matrices: dict[str, Tensor] = {
            name: decode_new(code, task.plugins, name) for name, code in codes.items()
        }
        network: nn.Module = copy_with_weights(task.model, matrices)
        if task.repair is None:
            return network
        return repair_with(
            task.repair,
            task.model,
            network,
            matrices,
            device=task.device,
            watcher=self._watcher,
        ).module
