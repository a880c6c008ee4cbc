"""The blocks of a network: modules that are reconstructed one after the other."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Containers that compute nothing themselves.
_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class _Calls:
    """The calls of a module in one forward pass: how many, and whether a Tensor of images comes in
    alone and another goes out."""

    count: int = 0
    plain: bool = True


def find_units(network: nn.Module, layers: Collection[str], images: Tensor) -> list[str]:
    """Paths of the modules to reconstruct, in the order in which a forward pass calls them.

    A block is a module of a class of its own with compressed layers in it, in the network's lists
    of such modules: residual blocks and transformer blocks, wherever timm and torchvision keep
    them. Layers elsewhere stand alone. A block that is called several times, or that passes more
    on than one tensor, is replaced by the layers in it; layers like that are left out.

    Args:
        network: in eval mode.
        layers: paths of the compressed layers.
        images: some images, on the network's device.
    """
    blocks = list(_blocks(network, "", frozenset(layers)))
    inside = {name: next((b for b in blocks if _is_inside(name, b)), None) for name in layers}
    calls = _observe(network, [*blocks, *layers], images)
    chosen = {block for block in blocks if _is_usable(calls[block])}
    alone = {name for name, block in inside.items() if block not in chosen}
    usable = chosen | {name for name in alone if _is_usable(calls[name])}
    return [name for name in calls if name in usable]


def tensors_of(unit: str, tensors: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of a student's tensors that are in a unit."""
    starts = (f"{unit}.", f"{unit}::")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(starts)}


def _blocks(module: nn.Module, path: str, layers: frozenset[str]) -> Iterator[str]:
    """Modules of classes of their own in lists: the innermost ones with several layers, and those
    with one where no block around them has more."""
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if inner in layers or not _layers_in(inner, layers):
            continue
        deeper = list(_blocks(child, inner, layers))
        is_block = isinstance(module, _LISTS) and type(child) not in _LISTS
        if is_block and all(len(_layers_in(block, layers)) == 1 for block in deeper):
            yield inner
        else:
            yield from deeper


def _layers_in(block: str, layers: frozenset[str]) -> list[str]:
    return [layer for layer in layers if _is_inside(layer, block)]


def _is_inside(layer: str, block: str) -> bool:
    return layer == block or layer.startswith(f"{block}.")


def _observe(network: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, _Calls]:
    """The calls of modules in one forward pass, in their order; uncalled modules come last."""
    calls: dict[str, _Calls] = {}

    def enter(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen = calls.setdefault(name, _Calls())
        seen.count += 1
        others = [*args[1:], *kwargs.values()]
        alone = not any(isinstance(value, Tensor) for value in others)
        seen.plain &= bool(args) and _holds_images(args[0], len(images)) and alone

    def leave(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[name].plain &= _holds_images(output, len(images))

    handles = []
    for name in names:
        module = network.get_submodule(name)
        handles.append(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(leave, name)))
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls | {name: _Calls() for name in names if name not in calls}


def _holds_images(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and len(value) == count


def _is_usable(calls: _Calls) -> bool:
    return calls.count == 1 and calls.plain
