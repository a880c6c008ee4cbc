"""The tensors of a network that a user has built, to be stored and to be written in place."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.artifact.dtypes import element_type
from vqzoo.artifact.schema import SEPARATOR
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.module_checks import check_network


def module_state(model: Any) -> dict[str, Tensor]:
    """The state dict of a network, if an artifact can hold it.

    Returns:
        Key -> the network's own tensor, which can be written in place.

    Raises:
        UsageError: not a network, or the first entry that an artifact cannot hold, or that would
            not reach the network if it were written.
    """
    check_network(model)
    named = chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    tensors = dict(named)
    for key, tensor in tensors.items():
        if tensor.layout is not torch.strided:
            raise UsageError(f"{key!r} is sparse, and an artifact holds dense tensors only")
    state: dict[str, Any] = model.state_dict()
    for key, _ in model.named_parameters():
        if key not in state:
            raise UsageError(f"the state dict lacks the parameter {key!r}, which would be lost")
    for key, value in state.items():
        _check_entry(key, value, tensors.get(key))
    return state


def _check_entry(key: str, value: Any, tensor: Tensor | None) -> None:
    """Check that an entry of the state dict is the network's own tensor, and can be stored."""
    if tensor is None or not isinstance(value, Tensor) or _place(value) != _place(tensor):
        raise UsageError(
            f"the state dict entry {key!r} is neither a parameter nor a buffer of the network, so "
            "an artifact cannot hold it"
        )
    if SEPARATOR in key:
        raise UsageError(f"{key!r}: rename the module, since {SEPARATOR!r} separates parts here")
    try:
        element_type(tensor.dtype)
    except VqzooError as error:
        raise UsageError(f"{key!r}: {error}") from None
    if isinstance(tensor, nn.Parameter) and not tensor.is_leaf:
        raise UsageError(
            f"{key!r} is the result of a computation with gradients: build the network under "
            "torch.no_grad()"
        )
    expanded = any(
        n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    if expanded or tensor.is_inference():
        raise UsageError(
            f"{key!r} cannot be written in place: register a clone() of it, made outside "
            "torch.inference_mode()"
        )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def keys_that_share_memory(state: Mapping[str, Tensor]) -> list[list[str]]:
    """The keys whose tensors have one storage, for each storage with several of them."""
    groups: dict[tuple[torch.device, int], list[str]] = {}
    for key, tensor in state.items():
        if tensor.numel():
            place = tensor.device, tensor.untyped_storage().data_ptr()
            groups.setdefault(place, []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def check_shared_memory(
    state: Mapping[str, Tensor], values: Mapping[str, Tensor], groups: Iterable[list[str]]
) -> None:
    """Check on a copy that no tensor overwrites another with other values.

    Args:
        state: the network's tensors.
        values: what is to be written into each.
        groups: of `keys_that_share_memory`.

    Raises:
        ArtifactError: the network ties tensors that differ in the artifact.
    """
    for keys in groups:
        nbytes = state[keys[0]].untyped_storage().nbytes()
        storage = torch.empty(nbytes, dtype=torch.uint8).untyped_storage()
        views = {
            key: torch.empty(0, dtype=state[key].dtype).set_(
                storage, state[key].storage_offset(), state[key].shape, state[key].stride()
            )
            for key in keys
        }
        for key, view in views.items():
            view.copy_(values[key])
        for key, view in views.items():
            if not same_values(view, values[key]):
                raise ArtifactError(
                    f"{key!r} shares memory with {_another(keys, key)!r} in the network, but has "
                    "other values in the artifact: the network ties what was not tied"
                )


def _another(keys: list[str], key: str) -> str:
    return next(other for other in reversed(keys) if other != key)


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two CPU tensors of one shape and dtype hold the same values; NaN is equal to NaN."""
    if torch.equal(a, b):
        return True
    flat = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b))
    return torch.equal(*flat)
