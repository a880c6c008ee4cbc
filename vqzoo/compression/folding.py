"""Networks whose weights are computed from other parameters, as networks with plain weights."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from vqzoo.errors import UsageError, cause

_PARAMETRIZATION = "parametrization"


def with_plain_weights(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """Fold pruning masks, weight norms, spectral norms and parametrizations into the weights.

    What a forward pass in eval mode computes from other parameters at each call becomes a parameter
    with the same values. That happens on a copy: `model` is not changed.

    Returns:
        The model itself where nothing is computed and no attribute is a tensor with a history,
        which cannot be copied again; else the copy in eval mode. And layer -> what was folded.

    Raises:
        UsageError: the model cannot be copied, or something cannot be folded; one line that names
            the layer or the attribute.
    """
    computed = list(_computed_weights(model))
    if not computed and all(tensor.is_leaf for tensor in _own_tensors(model)):
        check_copies(model)
        return model, {}
    network = _copy(model).eval()
    for path, name, how in computed:
        module = network.get_submodule(path)
        try:
            with torch.random.fork_rng(devices=[]):
                _fold(module, name, how)
        except Exception as error:
            raise UsageError(
                f"{_joined(path, name)} is computed by a {how}, which cannot be removed: "
                f"{cause(error)}"
            ) from error
    return network, _notes(computed)


def _computed_weights(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Yield (module path, tensor name, kind) of each tensor that is computed at every call."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                yield path, name, _PARAMETRIZATION
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield path, hook._tensor_name, "pruning mask"
            elif isinstance(hook, WeightNorm):
                yield path, hook.name, "weight norm"
            elif isinstance(hook, SpectralNorm):
                yield path, hook.name, "spectral norm"


def _notes(computed: list[tuple[str, str, str]]) -> dict[str, str]:
    kinds: dict[str, list[str]] = {}
    for path, name, how in computed:
        kinds.setdefault(path, []).append(f"{how} of its {name}")
    return {path: f"the {' and the '.join(texts)} became plain" for path, texts in kinds.items()}


def _fold(module: nn.Module, name: str, how: str) -> None:
    if how == _PARAMETRIZATION:
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    elif how == "pruning mask":
        prune.remove(module, name)
    elif how == "weight norm":
        remove_weight_norm(module, name)
    else:
        remove_spectral_norm(module, name)
    if isinstance(module._parameters.get(name), nn.Parameter):
        return
    values = getattr(module, name)  # a buffer where nothing requires gradients
    module._buffers.pop(name, None)
    module.__dict__.pop(name, None)
    module.register_parameter(name, nn.Parameter(values.detach(), requires_grad=False))


def check_copies(model: nn.Module) -> None:
    """Refuse a model that cannot be copied; its ordinary tensors are not copied to find out.

    Raises:
        UsageError: names the attribute that cannot be copied.
    """
    ordinary = (tensor for tensor in _own_tensors(model) if tensor.layout == torch.strided)
    _copied(model, {id(tensor): tensor for tensor in ordinary})


def _copy(model: nn.Module) -> nn.Module:
    """A copy of a model, of tensors computed by autograd without their history."""
    graph = [tensor for tensor in _own_tensors(model) if not tensor.is_leaf]
    copied: nn.Module = _copied(model, {id(tensor): tensor.detach().clone() for tensor in graph})
    return copied


def _own_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that modules hold: parameters, buffers and plain attributes."""
    for module in model.modules():
        yield from (tensor for tensor in module._parameters.values() if tensor is not None)
        yield from (tensor for tensor in module._buffers.values() if tensor is not None)
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _copied(model: nn.Module, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception as error:
        raise UsageError(
            f"the network cannot be copied ({cause(error)}){_culprit(model, memo)}"
        ) from error


def _culprit(model: nn.Module, memo: dict[int, Any]) -> str:
    """The attribute that cannot be copied: "; delete or replace encoder.lock (lock)"."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name == "_modules":
                continue
            held = name in ("_parameters", "_buffers")
            for own, item in value.items() if held else [(name, value)]:
                try:
                    copy.deepcopy(item, dict(memo))
                except Exception:
                    return f"; delete or replace {_joined(path, own)} ({_kind(item)})"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.layout} tensor".replace("torch.", "")
    return type(value).__name__


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
