"""A student in recovery, beside its network as it is stored, which is what is judged."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from vqzoo.calibration.repair import Judge
from vqzoo.finetuning.student import Student, make_student, write_back
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins


@dataclass(frozen=True)
class Trainee:
    """A student and what its values make of the decoded network.

    Attributes:
        student: its floats are trained, on the device.
        decoded: the network that is judged.
        codes: layer -> code of its weight, as it was before training.
        plugins: the loaded plugins.
        judge: how far a decoded network is from the dense one, on images held out.
    """

    student: Student
    decoded: nn.Module
    codes: Mapping[str, MethodCode]
    plugins: Plugins
    judge: Judge

    def write(self) -> Mapping[str, MethodCode]:
        """Decode the student into `decoded`, on the CPU; the codes that it would be stored as."""
        self.decoded.cpu()
        return write_back(self.student, self.decoded, self.codes, self.plugins)

    def divergence(self) -> float:
        """How far the network is from the dense one by the student's values of now."""
        self.write()
        return self.judge(self.decoded)


def make_trainee(
    model: nn.Module,
    codes: Mapping[str, MethodCode],
    plugins: Plugins,
    judge: Judge,
    device: torch.device,
) -> Trainee:
    """A trainee of a decoded network, which is not changed.

    Raises:
        VqzooError: the network has nothing to train.
    """
    student = make_student(model, codes, plugins, "all")
    student.network.to(device)
    decoded = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    return Trainee(student, decoded, codes, plugins, judge)
