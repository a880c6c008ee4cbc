"""An artifact as the starting point of fine-tuning: its folder, dense model and stored layers."""

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vqzoo.artifact.encode import FIXED_WIDTH, EncodedLayer, tensors_sha256
from vqzoo.artifact.layouts.tensors import open_tensors
from vqzoo.artifact.parts import layer_parts, part_keys
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import IMPORTED, IndicesEntry, LayerEntry
from vqzoo.compression.view import compressible_layers, layer_name, weight_key
from vqzoo.errors import UsageError
from vqzoo.models.dense import OpenedModel, find_model
from vqzoo.models.sources import local_path, names_repository, split_source
from vqzoo.progress import Watcher
from vqzoo.report.layer_record import LayerDescription, transform_records
from vqzoo.report.record import Record
from vqzoo.runs.finetune_request import FinetuneRequest


@dataclass(frozen=True)
class StoredLayers:
    """The compressed layers of an artifact.

    Attributes:
        layers: the weights as the file holds them.
        descriptions: how each was compressed, in the same order.
        packing: name of the packing that the artifact was made with.
    """

    layers: list[EncodedLayer]
    descriptions: list[LayerDescription]
    packing: str


def source_folder(source: str) -> Path:
    """An artifact's folder, with "." and ".." resolved to real names."""
    folder = local_path(source)
    return folder.resolve() if folder.name in ("", "..") else folder


def default_target(source: str) -> Path:
    """`<source>-finetuned`, beside the source folder or, for a repository, named after it in the
    working directory."""
    if names_repository(source):
        return Path(split_source(source)[1].partition("@")[0] + "-finetuned")
    folder = source_folder(source)
    return folder.with_name(folder.name + "-finetuned")


def open_dense_model(
    artifact: Artifact,
    record: Record | None,
    module: nn.Module,
    request: FinetuneRequest,
    watcher: Watcher,
) -> OpenedModel:
    """Open the network that was compressed, with the weights that the record names.

    Nobody here has the dense weights of a network that was imported as codes: in their place it is
    the network `module` that the artifact decodes to, and it needs a teacher.

    Raises:
        UsageError: its weights are not recorded, or differ from those that were compressed.
        VqzooError: its weights are not available.
    """
    origin = artifact.block.weights if record is None else record.weights
    if request.checkpoint is None and origin.startswith(IMPORTED):
        name = _recorded_name(artifact) if record is None else record.model
        return _imported_model(name, origin, module, request)
    return recorded_dense_model(artifact, record, request.checkpoint, watcher)


def recorded_dense_model(
    artifact: Artifact, record: Record | None, checkpoint: Path | None, watcher: Watcher
) -> OpenedModel:
    """Open the network that was compressed, with the weights that the record names.

    Args:
        artifact: an artifact with an architecture.
        record: its record, if there is one.
        checkpoint: a file with the weights; None for those that timm has.
        watcher: receives progress.

    Raises:
        UsageError: its weights are not recorded, or differ from those that were compressed.
        VqzooError: its weights are not available.
    """
    cfg = artifact.config.get("pretrained_cfg") or {}
    name, origin, seed = _recorded_name(artifact), artifact.block.weights, 0
    if record is not None:
        name, origin, seed = record.model, record.weights, record.seed
    if checkpoint is None:
        if record is None and origin == "pretrained" and not cfg.get("tag"):
            raise UsageError(
                f"the artifact does not record which weights of {name} were compressed: give "
                "--checkpoint FILE"
            )
        if origin not in ("pretrained", "random"):
            raise UsageError(
                f"the dense weights are recorded as {origin}, which cannot be opened again: give "
                "--checkpoint FILE"
            )
    opened = find_model(
        name,
        watcher,
        weights="random" if origin == "random" else "pretrained",
        checkpoint=checkpoint,
        model_args={
            "num_classes": artifact.config["num_classes"],
            **artifact.config.get("model_args", {}),
        },
        seed=seed,
        fall_back=False,
    )
    if record is not None and opened.weights_sha256 != record.weights_sha256:
        raise UsageError(
            f"the weights of {opened.name} here are not the ones that were compressed: give "
            "--checkpoint FILE with those"
        )
    return opened


def _recorded_name(artifact: Artifact) -> str:
    cfg = artifact.config.get("pretrained_cfg") or {}
    return f"{artifact.config['architecture']}.{cfg.get('tag') or ''}".rstrip(".")


def _imported_model(
    name: str, origin: str, module: nn.Module, request: FinetuneRequest
) -> OpenedModel:
    if request.teacher is None:
        raise UsageError(
            f"{name} was imported as codes, and its dense weights are not here: give --teacher "
            "MODEL to learn from, or --checkpoint FILE with them"
        )
    return OpenedModel(name, copy.deepcopy(module), origin, tensors_sha256(module.state_dict()))


def read_stored_layers(
    artifact: Artifact, record: Record | None, module: nn.Module
) -> StoredLayers:
    """Read the compressed layers, in the order of the model.

    Args:
        artifact: an artifact whose checksum was verified.
        record: its record, if there is one.
        module: the network that the artifact decodes to.
    """
    layers: dict[str, EncodedLayer] = {}
    packings: list[str] = []
    with open_tensors(artifact) as file:
        for key, entry in artifact.metadata.layers.items():
            tensors = file.tensors(part_keys(key, entry))
            layers[layer_name(key)] = EncodedLayer(key, entry.model_dump(mode="json"), tensors)
            packings += [
                part.packing
                for _, part in layer_parts(key, entry.code)
                if isinstance(part, IndicesEntry)
            ]
    if record is not None:
        descriptions = [layer.description() for layer in record.layers]
    else:
        descriptions = _descriptions(artifact, module)
    # Fixed width also replaces another packing that would not make a part smaller.
    packing = next((name for name in packings if name != FIXED_WIDTH), FIXED_WIDTH)
    return StoredLayers([layers[d.layer.name] for d in descriptions], descriptions, packing)


def _descriptions(artifact: Artifact, module: nn.Module) -> list[LayerDescription]:
    """How the layers were compressed, as far as the header says."""
    entries = artifact.metadata.layers
    descriptions = []
    for layer in compressible_layers(module)[0]:
        entry: LayerEntry | None = entries.get(weight_key(layer.name))
        if entry is not None:
            transforms = ((step.name, step.options) for step in entry.transforms)
            descriptions.append(
                LayerDescription(
                    layer=layer,
                    method=entry.methods[-1],
                    options=entry.options,
                    transforms=transform_records(transforms),
                    paper_bits=None,
                )
            )
    return descriptions
