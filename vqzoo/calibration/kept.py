"""Files of what calibration gathers, which stay on disk for the next run on the same network and
images."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vqzoo.artifact.encode import tensors_sha256
from vqzoo.artifact.files import canonical_json, shared_file
from vqzoo.artifact.writer import write_tensors
from vqzoo.data.batches import Data
from vqzoo.plugin.selector import LayerInfo
from vqzoo.storage.bounded import drop_oldest, mark_used
from vqzoo.storage.shared import SharedFolder

_shared: ContextVar[SharedFolder | None] = ContextVar("statistics_folder", default=None)


@contextmanager
def statistics_in(shared: SharedFolder | None) -> Iterator[None]:
    """Keep statistics in this folder inside the block, such as one that several machines share;
    None changes nothing."""
    token = _shared.set(shared or _shared.get())
    try:
        yield
    finally:
        _shared.reset(token)


def statistics_folder() -> SharedFolder | None:
    """The folder of an enclosing `statistics_in`."""
    return _shared.get()


def calibration_digest(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    data: Data,
    seed: int,
    device: torch.device,
    form: int,
) -> str:
    """Hex sha256 of everything that statistics follow from: of structure and weights, of the
    preprocessed images, of layers and seed, and of the statistics' own form."""
    images = hashlib.sha256()
    for batch in data:
        images.update(repr((batch.images.dtype, tuple(batch.images.shape))).encode())
        images.update(tensors_sha256({"images": batch.images}).encode())
    state = model.state_dict()
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    facts = {
        "form": form,
        "torch": torch.__version__,
        "device": device.type,
        "model": str(model),
        "weights": tensors_sha256(weights),
        "images": images.hexdigest(),
        "layers": [[layer.name, layer.groups, *layer.shape] for layer in layers],
        "seed": seed,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def load_kept(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, which is marked as used; None if it is missing or damaged."""
    try:
        tensors = load_file(path)
        mark_used(path)
    except (OSError, SafetensorError):
        return None
    return tensors


def save_kept(path: Path, tensors: Mapping[str, Tensor], most_bytes: int) -> None:
    """Write tensors, and delete older files of the folder beyond a bound.

    Raises:
        OSError: the file cannot be written.
    """
    with shared_file(path) as temporary:
        write_tensors(temporary, dict(tensors), {})
        mark_used(temporary)
    drop_oldest(path.parent, most_bytes, keep=path)
