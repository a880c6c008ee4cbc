"""Samples of layers' inputs that the cells of a sweep share."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vqzoo.calibration.kept import calibration_digest, load_kept, save_kept, statistics_folder
from vqzoo.calibration.layer_inputs import MEMORY, layer_inputs
from vqzoo.data.batches import Data
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Watcher

KEPT_BYTES = 4 * MEMORY  # of all files together
_FORM = 1  # of the samples and their files; raise it when either changes


def kept_inputs(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    data: Data,
    *,
    seed: int,
    device: torch.device,
    watcher: Watcher,
) -> dict[str, Tensor]:
    """`layer_inputs`, kept in the folder of an enclosing `statistics_in` if there is one.

    They stay on the machine, or on the file system that machines share, also where the folder has a
    store: files of up to 1 GiB are computed sooner than they are sent. The least recently used ones
    go where all together exceed 4 GiB.

    Args:
        model: the dense network.
        layers: the layers to observe.
        data: the images, of known length.
        seed: the run's.
        device: where to run the network.
        watcher: receives progress.
    """
    assert data.images is not None
    shared, path = statistics_folder(), None
    if shared is not None:
        digest = calibration_digest(model, layers, data, seed, device, _FORM)
        path = shared.folder / "inputs" / f"{digest}.safetensors"
        if (inputs := _load(path, layers)) is not None:
            return inputs
    with watcher.images(f"calibrating on {data.name}") as steps:
        inputs = layer_inputs(
            model, layers, data, data.images, seed=seed, device=device, progress=steps
        )
    if path is not None:
        try:
            save_kept(path, inputs, KEPT_BYTES)
        except OSError as error:
            watcher.say(f"Inputs of layers cannot be kept for other cells: {error}")
    return inputs


def _load(path: Path, layers: Sequence[LayerInfo]) -> dict[str, Tensor] | None:
    """What was saved; None if there is nothing, or something else."""
    tensors = load_kept(path)
    columns = {layer.name: layer.matrix_shape[1] for layer in layers}
    if tensors is None or not tensors.keys() <= columns.keys():
        return None
    fit = all(
        tensor.dtype == torch.float32 and tensor.ndim == 2 and tensor.shape[1] == columns[name]
        for name, tensor in tensors.items()
    )
    # Copies: the file may go while they are in use, and some file systems then take its pages away.
    return {name: tensor.clone() for name, tensor in tensors.items()} if fit else None
