"""`vqzoo.load_into`: an artifact's weights in a network that the user has built."""

from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from vqzoo.artifact.dtypes import ElementType, element_type, torch_dtype
from vqzoo.artifact.reader import Artifact, open_artifact, verify_checksum
from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.view import layer_name
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.network.build import Mode, coded_keys, fill, stored_tensors
from vqzoo.network.module_state import (
    check_shared_memory,
    keys_that_share_memory,
    module_state,
)
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.wrappers import without_wrappers

_MOST_NAMES = 3  # that one line lists


def load_into(
    model: nn.Module,
    folder: str | Path,
    *,
    mode: Mode = "decoded",
    plugins: Sequence[str | Path] = (),
) -> nn.Module:
    """Load an artifact's weights into a network that you have built.

    The file is read and decoded, and compared with the network, before the network changes. Its
    parameters and buffers are written in place, where they are; buffers outside the state dict stay
    as they are.

    Args:
        model: a network with the keys, shapes and dtypes of the one that was compressed; float32
            tensors that the file stores as float16 are widened. What its forward pass computes is
            not compared: an artifact of weights does not hold it. Of a network in `DataParallel`,
            `torch.compile` and the like, the network inside is filled.
        folder: a folder that `vqzoo.save_weights` wrote, or any other artifact.
        mode: "decoded" fills the network's own layers. "codes" makes the compressed layers run from
            codes, as in `vqzoo.load`.
        plugins: the plugin files that the artifact was compressed with.

    Returns:
        `model`, in eval mode and without gradients, as `vqzoo.load` returns networks. In the mode
        "codes", without wrappers.

    Raises:
        UsageError: the folder or the mode does not exist, or the network keeps something else than
            parameters and buffers in its state dict; the network is unchanged.
        ArtifactError: the artifact is damaged, or does not fit the network; the network is
            unchanged.

    Example:
        >>> model = vqzoo.load_into(torchvision.models.resnet18(), "my-weights")
    """
    if mode not in get_args(Mode):
        raise UsageError(f"unknown mode {mode!r}: choose one of {', '.join(get_args(Mode))}")
    network = without_wrappers(model)
    state = module_state(network)
    artifact = open_artifact(folder)
    verify_checksum(artifact)
    _check_fit(artifact, state)
    shared = keys_that_share_memory(state)
    coded: set[str] = set()
    if mode == "codes":
        coded = coded_keys(network, artifact) - set(chain.from_iterable(shared))
    with plugin_files(plugins):
        available = installed_plugins()
    values, codes = decoded_state(artifact, available, coded)
    values = {key: tensor.to(state[key].dtype) for key, tensor in values.items()}
    check_shared_memory(state, values, shared)
    # From here on, nothing fails.
    with torch.no_grad():
        for key, tensor in values.items():
            if key not in coded:
                state[key].copy_(tensor)
        for key, code in codes.items():
            network = run_from_code(network, layer_name(key), code, available)
    loaded = model if mode == "decoded" else network
    return loaded.eval().requires_grad_(False)


def decoded_state(
    artifact: Artifact, plugins: Plugins, coded: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, MethodCode]]:
    """Read and decode an artifact whose checksum has been verified.

    Returns:
        Key -> its tensor, contiguous on the CPU, those in `coded` on the meta device; and each key
        in `coded` -> its code, which has been decoded once to check it.

    Raises:
        ArtifactError: the artifact cannot be decoded.
    """
    values = {
        key: torch.empty(
            shape, dtype=torch_dtype(kind.name), device="meta" if key in coded else "cpu"
        )
        for key, (shape, kind) in stored_tensors(artifact).items()
    }
    return values, fill(values, artifact, plugins, set(coded))


def _check_fit(artifact: Artifact, state: dict[str, Tensor]) -> None:
    """Compare every key, shape and dtype. A tensor that stays dense may be stored as float16 where
    the network has float32.

    Raises:
        ArtifactError: names what is missing, what the network does not have, and what differs.
    """
    stored, layers = stored_tensors(artifact), artifact.metadata.layers.keys()
    expected = {key: (tuple(t.shape), element_type(t.dtype)) for key, t in state.items()}
    missing = [f"{key!r:.80}" for key in expected if key not in stored]
    unexpected = [f"{key!r:.80}" for key in stored if key not in expected]
    different = [
        f"{key!r:.80} is {_described(stored[key])} in the artifact and {_described(value)} in the "
        "network"
        for key, value in expected.items()
        if key in stored
        and stored[key] != value
        and not (key not in layers and _is_half_of(stored[key], value))
    ]
    problems = []
    if missing:
        problems.append(f"the artifact lacks {_listed(missing)}")
    if unexpected:
        problems.append(f"the network has no {_listed(unexpected)}")
    if different:
        problems.append(_listed(different))
    if problems:
        raise ArtifactError(f"{artifact.folder} does not fit the network: {'; '.join(problems)}")


def _is_half_of(
    stored: tuple[tuple[int, ...], ElementType], expected: tuple[tuple[int, ...], ElementType]
) -> bool:
    """Whether a tensor is stored as float16 in the place of float32."""
    names = (stored[1].name, expected[1].name)
    return stored[0] == expected[0] and names == ("float16", "float32")


def _described(tensor: tuple[tuple[int, ...], ElementType]) -> str:
    shape, kind = tensor
    return f"{kind.name} {shape}"


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
