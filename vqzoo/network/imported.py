"""The contents of another library's file, checked and decoded into the network they belong to."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vqzoo.compression.foreign import accepted
from vqzoo.compression.plugin_calls import decode_new
from vqzoo.compression.view import compressible_layers, weight_key
from vqzoo.errors import PluginError, VqzooError, did_you_mean
from vqzoo.numerics.arrays import all_finite
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.formats.importer import ImportedNetwork, Importer, ImportTarget
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.registry import Registered

_COUNTERS = "num_batches_tracked"  # of batch norms; eval mode does not read them


def import_target(model: nn.Module) -> ImportTarget:
    """What an importer has to know of the network that a file is imported into."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return ImportTarget(
        layers={weight_key(layer.name): layer for layer in compressible_layers(model)[0]},
        shapes={key: tuple(tensor.shape) for key, tensor in model.state_dict().items()},
        norms={
            path: module.eps
            for path, module in model.named_modules()
            if isinstance(module, _BatchNorm)
        },
        classifier=(names,) if isinstance(names, str) else tuple(names),
    )


def read_file(
    entry: Registered[Importer], path: Path, target: ImportTarget, plugins: Plugins
) -> ImportedNetwork:
    """Let an importer read a file, and check everything that it returns.

    Returns:
        What it read: every key of the network, with codes as an artifact gives them.

    Raises:
        VqzooError: the file is damaged, or does not fit the network.
        PluginError: the importer failed, or broke its contract.
    """
    who = named(entry)
    with isolated(f"importer {who}"):
        network = entry.item.read(path, target)
    if not isinstance(network, ImportedNetwork):
        raise PluginError(f"importer {who} returned a {type(network).__name__}")
    if not network.layers:
        raise VqzooError(
            f"{path} has no compressed layer as {entry.name} knows them; `vqzoo run --checkpoint` "
            "compresses dense weights"
        )
    check_keys(path, [*network.layers, *network.tensors], target)
    layers: dict[str, MethodCode] = {}
    for key, compressed in network.layers.items():
        layer = target.layers.get(key)
        if layer is None:
            raise PluginError(f"importer {who} has codes for {key}, which vqzoo does not compress")
        what = f"importer {who} on {key}"
        layers[key] = accepted(compressed, layer.matrix_shape, plugins, what, layer.numel)
    for key, tensor in network.tensors.items():
        if tuple(tensor.shape) != target.shapes[key]:
            raise VqzooError(
                f"{path} does not fit the network: {key} has the shape {tuple(tensor.shape)}, not "
                f"{target.shapes[key]}"
            )
    return ImportedNetwork(layers, network.tensors, network.licence, network.origin, network.notes)


def check_keys(path: Path, keys: Iterable[str], target: ImportTarget) -> None:
    """Refuse a file that lacks a tensor of the network, or has another.

    Raises:
        VqzooError: names the first such key.
        PluginError: a key is there twice.
    """
    present = list(keys)
    for key in target.shapes:
        if key not in present and key.rpartition(".")[2] != _COUNTERS:
            hint = did_you_mean(key, [other for other in present if other not in target.shapes])
            raise VqzooError(f"{path} has no {key}, which the network needs{hint}")
    for key in present:
        if key not in target.shapes:
            raise VqzooError(
                f"{path} has {key}, which the network does not{did_you_mean(key, target.shapes)} "
                "--model names the network, --model-arg its arguments"
            )
    if len(set(present)) < len(present):
        twice = next(key for key in present if present.count(key) > 1)
        raise PluginError(f"the importer has both codes and values for {twice}")


def fill_network(model: nn.Module, network: ImportedNetwork, plugins: Plugins, path: Path) -> None:
    """Decode and copy a file's contents into a network, in place and without rounding.

    Raises:
        VqzooError: the network cannot hold a value, or one is not finite; names the key.
        PluginError: a code cannot be decoded.
    """
    state: Mapping[str, Tensor] = model.state_dict()
    for key, compressed in network.layers.items():
        state[key].copy_(decode_new(compressed, plugins, key).view(state[key].shape))
    for key, tensor in network.tensors.items():
        values = tensor.detach().to(state[key].dtype)
        if values.is_floating_point() and not all_finite(values):
            raise VqzooError(f"{path}: {key} holds NaN or infinite values")
        if not torch.equal(values.to(tensor.dtype), tensor.detach()):
            raise VqzooError(
                f"{path}: {key} is {tensor.dtype}, and {values.dtype} cannot hold its values"
            )
        state[key].copy_(values)
