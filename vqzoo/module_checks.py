"""Refuse what is not a network with weights before any work begins."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vqzoo.errors import UsageError


def check_network(model: object) -> None:
    """Refuse anything but a network whose parameters and buffers have values.

    Raises:
        UsageError: one line that names the object, or the tensor without values.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(not_a_network(model))
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "the network is a TorchScript module, whose layers are compiled: give the module that "
            "it was made from"
        )
    for name, tensor in _tensors(model):
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        if is_lazy(tensor):
            raise UsageError(
                f"{name} has no values yet ({type(module).__name__} is lazy): run the network once "
                "on an input first"
            )
        if tensor.is_meta:
            raise UsageError(
                f"{name} is on the meta device and has no values: load the weights first "
                f"({type(module).__name__}.{own}; see torch.nn.Module.to_empty)"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def not_a_network(given: object) -> str:
    """A line that says what was given in place of a network, and what to do."""
    if isinstance(given, type) and issubclass(given, nn.Module):
        return f"{given.__name__} is a class, not a network: create one, {given.__name__}(...)"
    if isinstance(given, Mapping):
        return (
            f"a {type(given).__name__} of {len(given)} entries is not a network: load the state "
            "dict with load_state_dict, and give the network"
        )
    if isinstance(given, torch.export.ExportedProgram):
        return "an ExportedProgram is not a network: give the module that it was made from"
    return (
        f"{given!r:.200} is not a network, a torch.nn.Module: timm.create_model makes one by name, "
        "and vqzoo.load returns that of an artifact"
    )
