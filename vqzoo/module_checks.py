"""Refuse what is not a network with weights before any work begins."""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vqzoo.errors import UsageError


def check_network(model: object) -> nn.Module:
    """The model, if it is a network whose parameters and buffers have values.

    Raises:
        UsageError: one line that names the object, or the tensor without values.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(_not_a_network(model))
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise UsageError(
                f"{name} has no values yet, as its module is lazy: run the network once on an "
                "input first"
            )
        if tensor.is_meta:
            raise UsageError(
                f"{name} is on the meta device and has no values: load the weights first (see "
                "torch.nn.Module.to_empty and load_state_dict)"
            )
    return model


def check_eager(model: nn.Module) -> None:
    """Refuse a network whose layers torch has compiled into one program.

    Raises:
        UsageError: it is a TorchScript module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "the network is a TorchScript module, whose layers are compiled: give the module that "
            "it was made from"
        )


def _not_a_network(value: object) -> str:
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"{value.__name__} is a class, not a network: create one, {value.__name__}(...)"
    if isinstance(value, Mapping):
        return (
            f"a state dict or checkpoint ({type(value).__name__} of {len(value)} entries) is not a "
            "network: load it with load_state_dict, and give the network"
        )
    if isinstance(value, torch.export.ExportedProgram):
        return "an ExportedProgram is not a network: give the module that it was made from"
    return (
        f"{value!r:.200} is not a network (a torch.nn.Module): timm.create_model makes one by "
        "name, and vqzoo.load returns that of an artifact"
    )
