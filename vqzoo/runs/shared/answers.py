"""The dense model's logits for the images: computed, or read from a folder that runs share."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vqzoo.artifact.files import shared_file
from vqzoo.artifact.writer import write_tensors
from vqzoo.data.batches import Data
from vqzoo.errors import VqzooError
from vqzoo.evaluation.accuracy import answers_of
from vqzoo.progress import Watcher
from vqzoo.storage.shared import SharedFolder

_MOST_BYTES = 1 << 30


def known_answers(
    digest: str,
    network: nn.Module,
    data: Data,
    device: torch.device,
    watcher: Watcher,
    shared: SharedFolder,
) -> Tensor:
    """`answers_of` the dense network, once for all runs that share a folder.

    Args:
        digest: of everything that the answers follow from.
        network: the dense network.
        data: the images, of known number.
        device: where to run the network.
        watcher: receives progress.
        shared: the folder.
    """
    name = f"answers/{digest}.safetensors"
    path = shared.find(name, _MOST_BYTES)
    if (answers := _load(path, data)) is not None:
        return answers
    with watcher.images("asking the dense model") as steps:
        answers = answers_of(network, data, device=device, progress=steps)
    try:
        if answers.nbytes < _MOST_BYTES:
            _save(path, answers)
            shared.publish(name)
    except (OSError, VqzooError) as error:
        watcher.say(f"The dense model's answers cannot be kept: {error}")
    return answers


def _load(path: Path, data: Data) -> Tensor | None:
    """What `_save` wrote; None if there is nothing, or only a damaged file."""
    try:
        answers = load_file(path).get("logits")
    except (OSError, SafetensorError):
        return None
    if answers is None or answers.ndim != 2 or len(answers) != data.images:
        return None
    return answers if answers.dtype.is_floating_point else None


def _save(path: Path, answers: Tensor) -> None:
    with shared_file(path) as temporary:
        write_tensors(temporary, {"logits": answers.contiguous()}, {})
