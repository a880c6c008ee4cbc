"""The student network: it runs from its codes, and their floats are parameters."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.artifact.writer import untouched_tensors
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.decode import decode, moved
from vqzoo.compression.view import is_parameter, weight_key
from vqzoo.errors import VqzooError
from vqzoo.finetuning.settings import TrainedParts
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins


@dataclass(frozen=True)
class Student:
    """A network to fine-tune.

    It is trained in eval mode: batch norms keep their statistics and dropout is off. It is thus
    trained as exactly the function that is stored, small batches do not degrade statistics of a
    large data set, and nothing is drawn from torch's global random state.

    Attributes:
        network: the network, running from its codes.
        layers: path -> layer whose floats are trained.
        tensors: the trained tensors by name: "<layer>::<part>" of a code, otherwise the key in the
            state dict.
    """

    network: nn.Module
    layers: Mapping[str, CodedLayer]
    tensors: Mapping[str, nn.Parameter]

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the trained tensors to the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.tensors.items()}

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Set the trained tensors to the values of a snapshot."""
        for name, parameter in self.tensors.items():
            parameter.copy_(values[name])


def make_student(
    model: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins, train: TrainedParts
) -> Student:
    """Copy a decoded network into one that runs from its codes.

    A weight that several modules share stays decoded and is not trained, and so do the input
    projections of nn.MultiheadAttention.

    Args:
        model: the network with decoded weights; it is not changed.
        codes: layer -> code of its weight.
        plugins: the loaded plugins.
        train: see `Finetuning`.

    Raises:
        VqzooError: the network has nothing to train.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    named = dict(network.named_parameters())
    tensors = {name: named[name] for name in _beside_codes(network, train)}
    _, aliases = untouched_tensors(network, {weight_key(layer) for layer in codes})
    shared = set(aliases.values())
    layers: dict[str, CodedLayer] = {}
    for layer, code in codes.items():
        if weight_key(layer) in shared or is_parameter(layer):
            continue
        network = run_from_code(network, layer, code, plugins)
        coded = network.get_submodule(layer)
        assert isinstance(coded, CodedLayer)
        layers[layer] = coded
        tensors |= {f"{layer}::{name}": p for name, p in coded.params.items()}
    if not any(parameter.numel() for parameter in tensors.values()):
        raise VqzooError(
            "nothing to fine-tune: the methods store no floats; --train norms or --train all also "
            "trains norm layers and biases"
        )
    for parameter in tensors.values():
        parameter.requires_grad_(True)
    return Student(network, layers, tensors)


def _beside_codes(network: nn.Module, train: TrainedParts) -> list[str]:
    """Names of the parameters to train besides the floats of the codes."""
    if train == "codebooks":
        return []
    names = []
    for path, module in network.named_modules():
        norm = "norm" in type(module).__name__.lower()  # timm's norms have no common base class
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
    """Copy the trained tensors, rounded to their storage dtypes, into `model`.

    Args:
        student: the student.
        model: the decoded network that the student was copied from.
        codes: the codes of that network.
        plugins: the loaded plugins.

    Returns:
        layer -> code, for all layers.
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
