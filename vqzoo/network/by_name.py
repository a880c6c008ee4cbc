"""Open a network by what users type: an artifact, or a dense model of timm's."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vqzoo.artifact.schema import DENSE_FILE, WEIGHTS_FILE
from vqzoo.errors import UsageError
from vqzoo.models.dense import find_model
from vqzoo.models.sources import LOCAL_DIR, names_repository, split_source
from vqzoo.network.build import Mode
from vqzoo.network.load import load
from vqzoo.progress import Watcher


@dataclass(frozen=True)
class NamedNetwork:
    """A network in eval mode.

    Attributes:
        module: the network.
        name: its full timm name.
        label: the user's name for it.
        weights: where its weights came from: as in `OpenedModel`, or "artifact".
    """

    module: nn.Module
    name: str
    label: str
    weights: str


def names_artifact(name: str) -> bool:
    """Whether `name` is that of an artifact: a folder, or a repository without a prefix."""
    return Path(name).is_dir() or (names_repository(name) and split_source(name)[0] is None)


def open_network(
    name: str,
    watcher: Watcher,
    *,
    mode: Mode = "decoded",
    plugins: Sequence[Path] = (),
    checkpoint: Path | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> NamedNetwork:
    """Open an artifact (a folder, "org/name") or a dense model ("hf-hub:org/name" is one).

    Args:
        name: what the user typed.
        watcher: receives progress.
        mode: how an artifact runs; see `load`.
        plugins: the plugin files that an artifact was made with.
        checkpoint: weights of a dense model; see `find_model`.
        model_args: arguments of timm's factory for a dense model.

    Raises:
        UsageError: there is no such network.
        VqzooError: its weights are not available, or damaged.
    """
    if names_artifact(name):
        folder = Path(name)
        if (folder / DENSE_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file():
            raise UsageError(f"{name} is the folder of a dense model: write {LOCAL_DIR}:{name}")
        with watcher.phase(f"loading {name}"):
            module = load(name, mode=mode, plugins=plugins)
        cfg: dict[str, Any] = getattr(module, "pretrained_cfg", {})
        return NamedNetwork(module, f"{cfg['architecture']}.{cfg.get('tag')}", name, "artifact")
    if ":" not in name and (os.sep in name or name.startswith("~")):
        raise UsageError(f"the folder {name} does not exist")
    opened = find_model(name, watcher, checkpoint=checkpoint, model_args=model_args)
    return NamedNetwork(opened.module, opened.name, name, opened.weights)
