"""The network that learns: it runs from codes whose floats are parameters."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.artifact.writer import untouched_tensors
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.decode import decode, moved
from vqzoo.compression.view import weight_key
from vqzoo.errors import VqzooError
from vqzoo.finetuning.settings import TrainedParts
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins


@dataclass(frozen=True)
class Student:
    """A network to fine-tune.

    All of it stays in eval mode while it learns: batch norms keep their statistics, dropout is
    off. It thus learns as the very function that is stored, small batches do not spoil statistics
    of a large data set, and nothing is drawn from torch's global random state.

    Attributes:
        network: it, running from codes.
        layers: path -> layer whose floats learn.
        tensors: what learns, by name: "<layer>::<part>" of a code, else the state dict's key.
    """

    network: nn.Module
    layers: Mapping[str, CodedLayer]
    tensors: Mapping[str, nn.Parameter]

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of all that learns, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.tensors.items()}

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Take a snapshot back."""
        for name, parameter in self.tensors.items():
            parameter.copy_(values[name])


def make_student(
    model: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins, train: TrainedParts
) -> Student:
    """A copy of a decoded network that runs from its codes.

    A weight that other modules share stays as it was decoded, and does not learn.

    Args:
        model: with decoded weights; it is not changed.
        codes: layer -> code of its weight.
        plugins: what is installed.
        train: see `Finetuning`.

    Raises:
        VqzooError: nothing in it can learn.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    named = dict(network.named_parameters())
    tensors = {name: named[name] for name in _beside_codes(network, train)}
    _, aliases = untouched_tensors(network, {weight_key(layer) for layer in codes})
    shared = set(aliases.values())
    layers: dict[str, CodedLayer] = {}
    for layer, code in codes.items():
        if weight_key(layer) in shared:
            continue
        network = run_from_code(network, layer, code, plugins)
        coded = network.get_submodule(layer)
        assert isinstance(coded, CodedLayer)
        layers[layer] = coded
        tensors |= {f"{layer}::{name}": p for name, p in coded.params.items()}
    if not any(parameter.numel() for parameter in tensors.values()):
        raise VqzooError(
            "nothing to fine-tune: the methods store no floats (--train norms or all trains norm "
            "layers and biases)"
        )
    for parameter in tensors.values():
        parameter.requires_grad_(True)
    return Student(network, layers, tensors)


def _beside_codes(network: nn.Module, train: TrainedParts) -> list[str]:
    """Names of the parameters besides the codes' floats that are to learn."""
    if train == "codebooks":
        return []
    names = []
    for path, module in network.named_modules():
        norm = "norm" in type(module).__name__.lower()  # timm has norms that no base class unites
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            bias = train == "all" and name.rpartition(".")[2] == "bias"
            if parameter.is_floating_point() and (norm or bias):
                names.append(name)
    known = dict(network.named_parameters())
    return [name for name in names if name in known]


@torch.no_grad()
def write_back(
    student: Student, model: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins
) -> dict[str, MethodCode]:
    """Put what the student has learned, rounded as it is stored, into `model`.

    Args:
        model: the decoded network that the student was made of.
        codes: the codes that it was made of.

    Returns:
        layer -> code, of all layers.
    """
    parameters = dict(model.named_parameters())
    for name, parameter in student.tensors.items():
        if name in parameters:
            parameters[name].copy_(parameter)
    tuned = dict(codes)
    for layer, coded in student.layers.items():
        tuned[layer] = moved(coded.compressed, torch.device("cpu"))
        weight = parameters[weight_key(layer)]
        weight.copy_(decode(tuned[layer], plugins).view(weight.shape))
    return tuned
