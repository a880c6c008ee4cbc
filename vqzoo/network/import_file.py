"""`vqzoo import`: another library's file of codes as an artifact, without loss."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.folder import check_target, replacement_folder
from vqzoo.artifact.schema import IMPORTED
from vqzoo.artifact.writer import record_proof, write_artifact
from vqzoo.errors import UsageError, VqzooError
from vqzoo.models.arguments import required_features
from vqzoo.models.dense import find_model
from vqzoo.models.timm_config import timm_config
from vqzoo.network.imported import fill_network, import_target, read_file
from vqzoo.network.load import load
from vqzoo.network.proof import prove
from vqzoo.numerics.arrays import exact_half
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.formats.importer import ImportedNetwork
from vqzoo.plugin.limits import MAX_NAME_LENGTH
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import SilentWatcher, Watcher
from vqzoo.report.card import write_card

_MAX_LICENCE, _MAX_ORIGIN = 80, 500  # characters


@dataclass(frozen=True)
class ImportedArtifact:
    """What an import made.

    Attributes:
        folder: the artifact.
        layers: number of weights that are codes.
        source_bytes: size of the file, or of all files in the folder, that was imported.
        file_bytes: size of `vqzoo.safetensors`.
        licence: the licence that the artifact records; None if none is known.
    """

    folder: Path
    layers: int
    source_bytes: int
    file_bytes: int
    licence: str | None


def import_file(
    path: str | Path,
    kind: str,
    model: str,
    out: str | Path,
    *,
    model_args: Mapping[str, Any] | None = None,
    packing: str | None = None,
    licence: str | None = None,
    origin: str | None = None,
    plugins: Sequence[str | Path] = (),
    force: bool = False,
    watcher: Watcher | None = None,
) -> ImportedArtifact:
    """Convert another library's file of codes into an artifact.

    The decoded weights are those that the other library computes with, bit for bit. The artifact
    loads, is measured, fine-tuned and published like any other. It appears whole or not at all.

    Args:
        path: the file, or the folder of a format that is one.
        kind: the name of an importer.
        model: the timm model whose state dict the file has; its tag chooses the preprocessing.
        out: the artifact's folder.
        model_args: arguments of `timm.create_model`, as `num_classes`.
        packing: how codes become bytes; None for that of each method, which is "bits" for most.
        licence: the licence of the weights, where the file does not say: "cc-by-nc-4.0".
        origin: where the file came from: an address, or a few words.
        plugins: plugin files to use besides the installed plugins.
        force: replace an artifact that exists.
        watcher: receives progress.

    Raises:
        UsageError: the file, the importer, the model or the packing does not exist, or the folder
            does.
        VqzooError: the file is damaged, or does not fit the model; names the key.
    """
    source, target, watcher = Path(path), Path(out), watcher or SilentWatcher()
    with plugin_files(plugins):
        available = installed_plugins()
        importer = available.importers.get(kind)
        if packing is not None:
            available.packings.get(packing)
        if not source.exists():
            raise UsageError(f"{source} does not exist")
        check_target(target, "", force=force)
        opened = find_model(model, watcher, weights="random", model_args=model_args)
        with watcher.phase(f"reading {source.name}"):
            network = read_file(importer, source, import_target(opened.module), available)
            fill_network(opened.module, network, available, source)
        for note in network.notes:
            watcher.say(note)
        licence, origin = licence or network.licence, origin or network.origin
        config = _config(opened.module, licence, origin)
        with replacement_folder(target) as folder:
            weights = f"{IMPORTED}{importer.name}:{source.name}"[:MAX_NAME_LENGTH]
            with watcher.phase("writing the artifact"):
                size = _write(folder, opened.module, network, config, weights, packing, available)
    return ImportedArtifact(target, len(network.layers), _size(source), size, licence)


def _config(model: nn.Module, licence: str | None, origin: str | None) -> dict[str, Any]:
    """The artifact's config: the licence and the origin are those of the imported weights."""
    config = timm_config(model, pretrained=False)
    said = {
        "license": _short(licence, _MAX_LICENCE, "licence"),
        "origin_url": _short(origin, _MAX_ORIGIN, "origin"),
    }
    config["pretrained_cfg"] |= {name: text for name, text in said.items() if text}
    return config


def _short(text: str | None, limit: int, what: str) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    if not line or len(line) > limit or not line.isprintable():
        raise UsageError(f"the {what} {line!r:.100} is not a line of at most {limit} characters")
    return line


def _write(
    folder: Path,
    model: nn.Module,
    network: ImportedNetwork,
    config: Mapping[str, Any],
    weights: str,
    packing: str | None,
    plugins: Plugins,
) -> int:
    """Write an artifact, and compare what it decodes to with the network.

    Returns:
        The size of its weights file.

    Raises:
        VqzooError: a tensor that is read back differs; names it.
    """
    state = model.state_dict()
    layers = [
        encode_layer(key, tuple(state[key].shape), torch.float32, code, {}, packing, plugins)
        for key, code in network.layers.items()
    ]
    methods = {code.method for code in network.layers.values()}
    written = write_artifact(
        folder,
        _with_halves(model, network),
        layers,
        config,
        method=methods.pop() if len(methods) == 1 else "mixed" if methods else "none",
        weights=weights,
        features=required_features(config),
    )
    reread = load(folder)
    for key, tensor in reread.state_dict().items():
        if not torch.equal(tensor, state[key]):
            raise VqzooError(f"{key} is read back with other values; nothing was written")
    record_proof(folder, prove(model, reread))
    write_card(folder, plugins)
    return written.file_bytes


def _with_halves(model: nn.Module, network: ImportedNetwork) -> nn.Module:
    """A copy whose float32 tensors that stay dense are float16 or bfloat16 where one of them holds
    every value."""
    copy = deepcopy(model)
    for name, holder in [*copy.named_parameters(), *copy.named_buffers()]:
        values = holder.detach()
        if name in network.layers or values.dtype != torch.float32:
            continue
        halves = (exact_half(values, dtype) for dtype in (torch.float16, torch.bfloat16))
        holder.data = next((half for half in halves if half is not None), values)
    return copy


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
