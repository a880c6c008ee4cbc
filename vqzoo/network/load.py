"""`vqzoo.load`: an artifact as a network that runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from vqzoo.artifact.reader import (
    Artifact,
    open_artifact,
    verify_checksum,
)
from vqzoo.artifact.schema import CONFIG_FILE, WEIGHTS_FILE
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.models.sources import local_path, names_repository, split_source
from vqzoo.network.build import Mode, build_model
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    mode: Mode = "decoded",
    plugins: Sequence[str | Path] = (),
) -> nn.Module:
    """Load an artifact as a network that runs.

    Buffers outside the state dict are computed again; everything else is bit for bit what was
    stored.

    Args:
        source: a folder, or a repository on the Hub: "org/name", "org/name@revision". If both
            exist, the folder is loaded; the prefixes "hf-hub:" and "local-dir:" choose.
        revision: a branch, tag or commit of the repository.
        device: the device of the network.
        mode: "decoded" returns timm's own modules with dense weights. "codes" keeps the compressed
            layers as codes, which each forward pass multiplies by, or decodes some rows at a time:
            less memory; logits agree to within 1e-4 of the largest. The layers keep
            their classes, attributes, hooks and state dict, and decode `weight` when it is read.
        plugins: the plugin files that the artifact was compressed with.

    Returns:
        timm's module in eval mode. Its `vqzoo_commit` is the commit that was loaded from the Hub
        (40 hexadecimal digits); None for a folder.

    Raises:
        UsageError: the repository, the revision or the mode does not exist, or the artifact holds
            weights only (see `vqzoo.load_into`).
        ArtifactError: the artifact is damaged or inconsistent, or needs a plugin or an architecture
            that is not installed.
        VqzooError: the artifact is not in the cache and cannot be downloaded.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"unknown mode {mode!r}: choose one of {', '.join(get_args(Mode))}")
    artifact, commit = verified_artifact(source, revision)
    with plugin_files(plugins):
        model = build_model(artifact, installed_plugins(), mode).to(device)
    model.vqzoo_commit = commit  # type: ignore[assignment]  # torch types attributes as tensors or modules
    return model


def verified_artifact(
    source: str | Path, revision: str | None = None
) -> tuple[Artifact, str | None]:
    """Open an artifact as `load` does and verify its checksum.

    Returns:
        The artifact, and its commit if it is from the Hub.
    """
    if names_repository(source):
        from vqzoo.hub.repository import fetch

        try:
            pulled = fetch(str(source), revision=revision, names=(CONFIG_FILE, WEIGHTS_FILE))
        except VqzooError as error:
            if isinstance(error, ArtifactError) or split_source(str(source))[0] is not None:
                raise  # the repository exists, or a prefix says that no folder is meant
            raise type(error)(f"there is no folder {source}; {error}") from error
        return pulled.artifact, pulled.commit
    if revision is not None:
        raise UsageError(f"{source} is a folder, and only repositories have revisions")
    artifact = open_artifact(local_path(str(source)))
    verify_checksum(artifact)
    return artifact, None
