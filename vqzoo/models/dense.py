"""Open dense models with timm's weights, those of a checkpoint, or random ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from vqzoo.artifact.encode import tensors_sha256
from vqzoo.errors import ArtifactError, UsageError, VqzooError, one_line
from vqzoo.models.arguments import check_arguments
from vqzoo.models.availability import is_cached, is_reachable
from vqzoo.models.checkpoint import load_checkpoint
from vqzoo.models.create import create_model
from vqzoo.models.embedded import EMBEDDED_RELATIVES
from vqzoo.models.names import check_name, full_name
from vqzoo.models.registration import register_models
from vqzoo.models.sources import LOCAL_DIR, split_source
from vqzoo.progress import Watcher


@dataclass(frozen=True)
class OpenedModel:
    """A dense model, ready to be compressed.

    Attributes:
        name: its full timm name; of a local folder only the last component.
        module: the model in eval mode, in float32, without gradients.
        weights: where its weights came from: "pretrained", "random" or "checkpoint:<file name>".
        weights_sha256: of the state dict, in float32.
    """

    name: str
    module: nn.Module
    weights: str
    weights_sha256: str


def resolve_name(name: str, notify: Callable[[str], None], *, fall_back: bool = True) -> str:
    """Resolve what the user typed to the full name of a model with weights.

    Args:
        name: a timm name, with or without a tag.
        notify: called with a text for the user if an embedded model takes the place of `name`.
        fall_back: whether, offline, a bare name may fall back on the embedded model that is related
            to it.

    Returns:
        The full name of the model, whose weights are cached or downloadable.

    Raises:
        UsageError: there is no such model, or it has no pretrained weights.
        VqzooError: the weights are neither cached nor downloadable.
    """
    check_name(name)
    if split_source(name)[0] is not None:
        return name
    full = full_name(name)
    cfg = timm.models.get_pretrained_cfg(full)
    if cfg is None or not cfg.has_weights:
        raise UsageError(
            f"there are no pretrained weights for {name}: give --checkpoint FILE, "
            "or --weights random to try things out"
        )
    if is_cached(cfg) or is_reachable(cfg):
        return full
    relative = EMBEDDED_RELATIVES.get(name) if fall_back else None
    if relative is None:
        raise VqzooError(
            f"the weights of {full} are not cached and cannot be downloaded (no connection): "
            "give --checkpoint FILE, or --weights random to try things out"
        )
    notify(
        f"There is no connection, and {full} is not cached: using the embedded {relative} instead, "
        f"a small relative trained on Fashion-MNIST. For {name} itself give --checkpoint FILE."
    )
    return relative


def find_model(
    name: str,
    watcher: Watcher,
    *,
    weights: Literal["pretrained", "random"] = "pretrained",
    checkpoint: Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    fall_back: bool = True,
) -> OpenedModel:
    """Create a model by name and load its weights.

    Args:
        name: a timm name, with or without a tag.
        watcher: receives progress, and a message about a fall-back.
        weights: "random" initializes from `seed`.
        checkpoint: a file with weights to load instead: .safetensors, or a state dict written by
            `torch.save` (read with `weights_only=True`).
        model_args: further arguments of timm's factory, such as num_classes or act_layer, as
            an artifact holds them.
        seed: for random weights.
        fall_back: see `resolve_name`.

    Raises:
        UsageError: there is no such model, or it does not take these arguments.
        VqzooError: the weights are not available, cannot be read, or do not fit.
    """
    register_models()
    arguments = dict(model_args or {})
    _check(arguments)
    pretrained = weights == "pretrained" and checkpoint is None
    if pretrained:
        with watcher.phase(f"looking for {name}"):
            full = resolve_name(name, watcher.say, fall_back=fall_back)
    else:
        check_name(name)
        full = name
    with watcher.phase(f"opening {full}"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _create(full, pretrained, arguments)
        source: str = weights
        if checkpoint is not None:
            for note in load_checkpoint(module, checkpoint, full):
                watcher.say(note)
            source = f"checkpoint:{checkpoint.name}"
        module = module.float().eval().requires_grad_(False)
        digest = tensors_sha256(module.state_dict())
    return OpenedModel(_public_name(full), module, source, digest)


def _public_name(name: str) -> str:
    """The name of a model; of a local folder only the last component."""
    kind, path = split_source(name)
    return f"{LOCAL_DIR}:{Path(path).resolve().name}" if kind == LOCAL_DIR else name


def _check(arguments: Mapping[str, Any]) -> None:
    try:
        check_arguments(arguments)
    except ArtifactError as error:
        raise UsageError(str(error)) from None


def _create(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return create_model(name, arguments, pretrained=pretrained)
    except TypeError as error:
        raise UsageError(f"{name} does not take these arguments: {error}") from error
    except Exception as error:
        action = "load the weights of" if pretrained else "create"
        raise VqzooError(f"timm cannot {action} {name}: {one_line(error)}") from error
