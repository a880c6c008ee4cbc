"""Publish artifacts on the Hub, and pull them from it, through huggingface_hub.

The client's environment variables apply: HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT.
"""

import io
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from vqzoo.artifact.folder import check_new_folder, new_folder
from vqzoo.artifact.reader import Artifact, open_artifact, verify_checksum
from vqzoo.artifact.schema import (
    BUDGET_PLOT_FILE,
    CARD_FILE,
    CONFIG_FILE,
    DENSE_FILE,
    PLOT_FILE,
    WEIGHTS_FILE,
)
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.hub.errors import NO_TOKEN, hub_errors, invalid_name
from vqzoo.models.sources import parse_hub_id
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import REPO_PLACEHOLDER, card_plots, render_card
from vqzoo.report.costs.file import read_costs
from vqzoo.report.record_file import read_record

TAG = "vqzoo"
# The only files of an artifact's folder that are published, and of a repository that are pulled.
PUBLISHED = (CONFIG_FILE, WEIGHTS_FILE, DENSE_FILE, CARD_FILE, PLOT_FILE, BUDGET_PLOT_FILE)


@dataclass(frozen=True)
class Pushed:
    """A published artifact.

    Attributes:
        repo: "org/name".
        commit: the commit that holds it.
        url: where to view it: the pull request, if there is one, or the repository.
    """

    repo: str
    commit: str
    url: str


@dataclass(frozen=True)
class Pulled:
    """An artifact from the Hub whose checksum has been verified, and its commit."""

    artifact: Artifact
    commit: str


def check_push(repo: str, weights: str, token: str | None = None) -> str:
    """Check beforehand whether a push can succeed.

    Args:
        repo: "org/name".
        weights: where the dense weights come from.
        token: a token to use instead of the one stored here.

    Returns:
        The token to push with.

    Raises:
        UsageError: `repo` is not a valid name, or the weights are random.
        VqzooError: HF_HUB_OFFLINE is set, or there is no token.
    """
    if parse_hub_id(repo) != (repo, None):
        raise invalid_name(repo)
    if weights == "random":
        raise UsageError("vqzoo does not publish random weights")
    if constants.HF_HUB_OFFLINE:
        raise VqzooError("nothing can be pushed while HF_HUB_OFFLINE is set")
    token = token or huggingface_hub.get_token()
    if token is None:
        raise VqzooError(NO_TOKEN)
    return token


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Pushed:
    """Publish an artifact as one commit. Files that the repository has already are not uploaded.

    The commit holds config.json, vqzoo.safetensors, README.md and its picture, and
    model.safetensors if the artifact has one; never report.json. An artifact without a card gets
    one.

    Args:
        folder: the artifact's folder.
        repo: "org/name"; created if it does not exist (except for a pull request).
        private: create the repository as a private one.
        revision: the branch to commit to, created if it does not exist; the default branch if None.
        create_pr: open a pull request against the default branch instead.
        token: a token to use instead of the one stored here.

    Raises:
        ArtifactError: the artifact is damaged.
        UsageError: its weights are random, a plugin file made it, it has no architecture, `repo` is
            not a valid name, or the repository is public although `private` is set; nothing was
            uploaded.
        VqzooError: there is no connection, token or permission, or the upload was interrupted: the
            repository is unchanged, and the same call resumes.
    """
    if create_pr and revision is not None:
        raise UsageError("a pull request always targets the default branch: leave the revision out")
    artifact = open_artifact(folder)
    if artifact.weights_only:
        raise UsageError(
            f"{folder} holds weights only, and nobody could build its network from the Hub: only "
            "networks that timm creates are published (timm.models.register_model adds your own)"
        )
    if files := artifact.plugin_files():
        raise UsageError(
            f"the artifact needs the plugin file {', '.join(files)}, which only you have: make a "
            "package of it with `vqzoo new-plugin`"
        )
    token = check_push(repo, artifact.block.weights, token)
    verify_checksum(artifact)
    with hub_errors(repo):
        api = HfApi(token=token, library_name="vqzoo", library_version=version("vqzoo"))
        target = _prepare_repo(api, repo, private=private, revision=revision, create_pr=create_pr)
        info = api.create_commit(
            repo,
            _operations(artifact, repo, {s.rfilename for s in target.siblings or ()}),
            commit_message=_title(artifact),
            revision=revision,
            create_pr=create_pr,
            parent_commit=target.sha,
        )
    branch = f"/tree/{revision}" if revision else ""
    return Pushed(repo, info.oid, info.pr_url or f"{constants.ENDPOINT}/{repo}{branch}")


def pull(
    repo: str,
    *,
    revision: str | None = None,
    out: str | Path | None = None,
    token: str | None = None,
) -> Pulled:
    """Download an artifact into the Hub's cache and verify its checksum.

    Args:
        repo: "org/name" or "org/name@revision", with or without "hf-hub:".
        revision: a branch, a tag or a commit.
        out: a folder to copy the artifact to; it must not exist or be empty.
        token: a token to use instead of the one stored here.

    Raises:
        UsageError: the repository or revision does not exist, or `out` is taken.
        ArtifactError: the repository holds no artifact, or a damaged one.
        VqzooError: it is not in the cache and cannot be downloaded.
    """
    target = Path(out) if out is not None else None
    if target is not None:
        check_new_folder(target)
    pulled = fetch(repo, revision=revision, token=token)
    if target is None:
        return pulled
    with new_folder(target) as partial:
        for name in PUBLISHED:
            if (pulled.artifact.folder / name).is_file():
                shutil.copyfile(pulled.artifact.folder / name, partial / name)
    return Pulled(open_artifact(target), pulled.commit)


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    names: tuple[str, ...] = PUBLISHED,
) -> Pulled:
    """Like `pull`, but into the cache only, and only the files of the given names."""
    parsed = parse_hub_id(repo)
    if parsed is None:
        raise invalid_name(repo, "ORG/NAME[@REVISION]")
    name, named_revision = parsed
    if revision is not None and named_revision not in (None, revision):
        raise UsageError(f"{repo} names a revision already: leave {revision!r:.80} out")
    revision = revision or named_revision
    folder = _snapshot(name, revision, names, token)
    if not (folder / CONFIG_FILE).is_file():
        raise ArtifactError(f"{name} is not a vqzoo artifact: it has no {CONFIG_FILE}")
    try:
        artifact = _verified(folder, name)
    except ArtifactError:
        if constants.HF_HUB_OFFLINE:
            raise
        # The cache compares sizes only: download damaged files once more.
        folder = _snapshot(name, revision, names, token, force=True)
        artifact = _verified(folder, name)
    return Pulled(artifact, folder.name)


def _prepare_repo(
    api: HfApi, repo: str, *, private: bool, revision: str | None, create_pr: bool
) -> Any:
    """Create the repository and the branch if they do not exist.

    Returns:
        The Hub's description of the branch to commit to.

    Raises:
        UsageError: the repository is public although `private` is set.
    """
    if not create_pr:
        api.create_repo(repo, private=private or None, exist_ok=True)
    info = api.model_info(repo)
    if private and not info.private:
        raise UsageError(f"{repo} exists and is public: nothing was pushed; make it private first")
    if revision is None:
        return info
    api.create_branch(repo, branch=revision, exist_ok=True)
    return api.model_info(repo, revision=revision)


def _operations(
    artifact: Artifact, repo: str, existing: set[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The operations of a commit: add the files of this artifact, and delete those among the
    `existing` ones that only an earlier artifact had."""
    files: dict[str, Path | bytes] = {
        name: artifact.folder / name for name in PUBLISHED if (artifact.folder / name).is_file()
    }
    files[CARD_FILE] = _card(artifact, repo)
    has_card = (artifact.folder / CARD_FILE).is_file()
    for name, draw in card_plots(artifact, None if has_card else read_record(artifact)).items():
        if name not in files:
            picture = io.BytesIO()
            draw(picture)
            files[name] = picture.getvalue()
    obsolete = sorted(existing & set(PUBLISHED) - set(files))
    return [
        *(CommitOperationAdd(name, data) for name, data in sorted(files.items())),
        *(CommitOperationDelete(name) for name in obsolete),
    ]


def _card(artifact: Artifact, repo: str) -> bytes:
    """The artifact's card, which the user may have edited, with the repository's name filled in."""
    path = artifact.folder / CARD_FILE
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        record, costs = read_record(artifact), read_costs(artifact)
        text = render_card(artifact, record, installed_plugins(), costs)
    return text.replace(REPO_PLACEHOLDER, repo).encode()


def _title(artifact: Artifact) -> str:
    return f"{artifact.config.get('architecture')} compressed by {artifact.block.method}"


def _snapshot(
    repo: str, revision: str | None, names: tuple[str, ...], token: str | None, force: bool = False
) -> Path:
    """Download files of a repository into the cache, and return their folder."""
    with hub_errors(repo):
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(names),
            token=token,
            library_name="vqzoo",
            library_version=version("vqzoo"),
            force_download=force,
        )
    return Path(os.fspath(folder))


def _verified(folder: Path, repo: str) -> Artifact:
    try:
        artifact = open_artifact(folder)
        verify_checksum(artifact)
    except ArtifactError as error:
        raise ArtifactError(f"{repo}: {error}") from error
    return artifact
