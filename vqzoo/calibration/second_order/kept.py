"""Second-order statistics that stay on disk for the next run on the same network and images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vqzoo.artifact.files import cache_folder
from vqzoo.calibration.kept import calibration_digest, load_kept, save_kept, statistics_folder
from vqzoo.calibration.second_order.statistics import HESSIAN_BYTES, second_order
from vqzoo.data.batches import Data
from vqzoo.errors import VqzooError
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Watcher
from vqzoo.storage.shared import SharedFolder

KEPT_BYTES = 2 * HESSIAN_BYTES  # of all files together
_FORM = 1  # of the statistics and their files; raise it when either changes


def kept_second_order(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    data: Data,
    *,
    seed: int,
    device: torch.device,
    watcher: Watcher,
) -> dict[str, SecondOrder]:
    """`second_order` on calibration data of known length, kept in `cache_folder` or the folder of
    an enclosing `statistics_in`.

    What is kept is found again by the hash of the network's structure and weights, of the
    preprocessed images, of the layers and of the seed. Files are written whole or not at all; the
    least recently used ones go where all together exceed 4 GiB. If the folder is not writable, the
    watcher is told, and nothing is kept.

    Args:
        model: the dense network.
        layers: the layers to observe, at least one.
        data: the images.
        seed: the run's.
        device: where to run the network.
        watcher: receives progress.
    """
    assert data.images is not None
    shared = statistics_folder() or SharedFolder(cache_folder())
    digest = calibration_digest(model, layers, data, seed, device, _FORM)
    name = f"second-order/{digest}.safetensors"
    path = shared.find(name, KEPT_BYTES)
    if (statistics := _load(path, layers)) is not None:
        return statistics
    with watcher.images(f"calibrating on {data.name}") as steps:
        statistics = second_order(
            model, layers, data, data.images, seed=seed, device=device, progress=steps
        )
    try:
        _save(path, statistics)
        shared.publish(name)
    except (OSError, VqzooError) as error:
        watcher.say(f"Calibration cannot be kept for the next run: {error}")
    return statistics


def _load(path: Path, layers: Sequence[LayerInfo]) -> dict[str, SecondOrder] | None:
    """What `_save` wrote; None if there is nothing, or only a damaged file."""
    tensors = load_kept(path)
    if tensors is None:
        return None
    statistics: dict[str, SecondOrder] = {}
    for layer in layers:
        weights, hessian = tensors.get(f"{layer.name}/g"), _blocks(tensors, layer.name)
        if weights is None:
            continue
        sizes = [block.shape for block in hessian]
        n = sum(size[-1] for size in sizes)
        square = all(size == (layer.groups, size[-1], size[-1]) for size in sizes)
        if weights.shape != (layer.shape[0],) or n != layer.matrix_shape[1] or not square:
            return None
        statistics[layer.name] = SecondOrder(hessian, weights)
    return statistics


def _blocks(tensors: Mapping[str, Tensor], layer: str) -> tuple[Tensor, ...]:
    blocks: list[Tensor] = []
    while (block := tensors.get(f"{layer}/h{len(blocks)}")) is not None:
        blocks.append(block)
    return tuple(blocks)


def _save(path: Path, statistics: Mapping[str, SecondOrder]) -> None:
    """Write the statistics, and delete older files beyond the bound."""
    tensors: dict[str, Tensor] = {}
    for name, layer in statistics.items():
        tensors[f"{name}/g"] = layer.row_weights
        tensors |= {f"{name}/h{index}": block for index, block in enumerate(layer.hessian)}
    save_kept(path, tensors, KEPT_BYTES)
