"""The Hub: publish, find and pull artifacts. huggingface_hub does it; this says what and when.

Its environment holds as in every tool of the Hub: HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT.
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
from vqzoo.artifact.schema import CARD_FILE, CONFIG_FILE, DENSE_FILE, PLOT_FILE, WEIGHTS_FILE
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.hub.errors import NO_TOKEN, hub_errors
from vqzoo.models.sources import parse_hub_id
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import REPO_PLACEHOLDER, render_card
from vqzoo.report.card_plot import draw_bytes
from vqzoo.report.record_file import read_record

TAG = "vqzoo"
# Nothing else of an artifact's folder is published, and nothing else of a repository is pulled.
PUBLISHED = (CONFIG_FILE, WEIGHTS_FILE, DENSE_FILE, CARD_FILE, PLOT_FILE)


@dataclass(frozen=True)
class Pushed:
    """A published artifact: its repository, the commit that holds it, and where it can be seen
    (the pull request, if one was made)."""

    repo: str
    commit: str
    url: str


@dataclass(frozen=True)
class Pulled:
    """An artifact from the Hub, its checksum verified: where it lies, and its commit."""

    artifact: Artifact
    commit: str


def check_push(repo: str, weights: str, token: str | None = None) -> str:
    """Refuse what could not be pushed anyway.

    Args:
        repo: "org/name".
        weights: where the dense weights come from.
        token: instead of the one stored here.

    Returns:
        The token to push with.

    Raises:
        UsageError: `repo` is no name, or the weights are random.
        VqzooError: HF_HUB_OFFLINE is set, or no token is known.
    """
    if parse_hub_id(repo) != (repo, None):
        raise UsageError(f"{repo!r:.200} is not a repository's name: write ORG/NAME")
    if weights == "random":
        raise UsageError("random weights are never published")
    if constants.HF_HUB_OFFLINE:
        raise VqzooError("HF_HUB_OFFLINE is set: nothing can be pushed")
    found = token or huggingface_hub.get_token()
    if found is None:
        raise VqzooError(NO_TOKEN)
    return found


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Pushed:
    """Publish an artifact as one commit; what the repository has already is not uploaded again.

    Published are config.json, vqzoo.safetensors, README.md and its picture, and
    model.safetensors where it is there; never report.json. An artifact without a card gets one.

    Args:
        folder: the artifact's.
        repo: "org/name"; made if it does not exist (not for a pull request).
        private: make the repository private.
        revision: a branch, made if it does not exist; the default one unless given.
        create_pr: open a pull request against the default branch instead.
        token: instead of the one stored here.

    Raises:
        ArtifactError: the artifact is not whole.
        UsageError: its weights are random, a plugin file made it, `repo` is no name, or it is
            public where `private` was asked for; nothing was uploaded.
        VqzooError: no connection, no token, no permission, or an upload broke off: the repository
            is as it was, and the same call goes on.
    """
    if create_pr and revision is not None:
        raise UsageError("a pull request goes to the default branch: leave the revision out")
    artifact = open_artifact(folder)
    if files := artifact.plugin_files():
        raise UsageError(
            f"it was made with the plugin file {', '.join(files)}, which nobody else has: "
            "`vqzoo new-plugin` makes a package of it"
        )
    token = check_push(repo, artifact.block.weights, token)
    verify_checksum(artifact)
    with hub_errors(repo):
        api = HfApi(token=token, library_name="vqzoo", library_version=version("vqzoo"))
        there = _ready_repo(api, repo, private=private, revision=revision, create_pr=create_pr)
        info = api.create_commit(
            repo,
            _operations(artifact, repo, {s.rfilename for s in there.siblings or ()}),
            commit_message=_title(artifact),
            revision=revision,
            create_pr=create_pr,
            parent_commit=there.sha,
        )
    at = f"/tree/{revision}" if revision else ""
    return Pushed(repo, info.oid, info.pr_url or f"{constants.ENDPOINT}/{repo}{at}")


def pull(
    repo: str,
    *,
    revision: str | None = None,
    out: str | Path | None = None,
    token: str | None = None,
) -> Pulled:
    """Fetch an artifact into the Hub's cache and verify it.

    Args:
        repo: "org/name", "org/name@revision", with or without "hf-hub:".
        revision: a branch, a tag or a commit.
        out: copy the artifact into this folder, which must not exist or be empty.
        token: instead of the one stored here.

    Raises:
        UsageError: there is no such repository or revision; `out` is taken.
        ArtifactError: what the repository holds is damaged, or no artifact.
        VqzooError: it is not in the cache and cannot be fetched.
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
    """As `pull`, into the cache alone, and only the files of these names."""
    found = parse_hub_id(repo)
    if found is None:
        raise UsageError(f"{repo!r:.200} is not a repository's name: write ORG/NAME[@REVISION]")
    name, at = found
    if at is not None and revision is not None and at != revision:
        raise UsageError(f"{repo} names a revision already: leave {revision!r:.80} out")
    wanted = revision or at
    folder = _snapshot(name, wanted, names, token)
    if not (folder / CONFIG_FILE).is_file():
        raise ArtifactError(f"{name} is not a vqzoo artifact: it has no {CONFIG_FILE}")
    try:
        artifact = _verified(folder, name)
    except ArtifactError:
        if constants.HF_HUB_OFFLINE:
            raise
        # The cache believes in sizes; what broke on the way is fetched once more.
        folder = _snapshot(name, wanted, names, token, again=True)
        artifact = _verified(folder, name)
    return Pulled(artifact, folder.name)


def _ready_repo(
    api: HfApi, repo: str, *, private: bool, revision: str | None, create_pr: bool
) -> Any:
    """Make what is missing of a repository and its branch; what the Hub says of it then."""
    if not create_pr:
        api.create_repo(repo, private=private or None, exist_ok=True)
    there = api.model_info(repo)
    if private and not there.private:
        raise UsageError(f"{repo} exists and is public: nothing was pushed; make it private first")
    if revision is None:
        return there
    api.create_branch(repo, branch=revision, exist_ok=True)
    return api.model_info(repo, revision=revision)


def _operations(
    artifact: Artifact, repo: str, there: set[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Add what is published; remove what an earlier artifact had and this one has not."""
    files: dict[str, Path | bytes] = {
        name: artifact.folder / name for name in PUBLISHED if (artifact.folder / name).is_file()
    }
    files[CARD_FILE] = _card(artifact, repo)
    if PLOT_FILE not in files:
        picture = io.BytesIO()
        draw_bytes(artifact, picture)
        files[PLOT_FILE] = picture.getvalue()
    gone = sorted(there & set(PUBLISHED) - set(files))
    return [
        *(CommitOperationAdd(name, data) for name, data in sorted(files.items())),
        *(CommitOperationDelete(name) for name in gone),
    ]


def _card(artifact: Artifact, repo: str) -> bytes:
    """The card as it lies there, edited perhaps, with the repository's name filled in."""
    path = artifact.folder / CARD_FILE
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        text = render_card(artifact, read_record(artifact), installed_plugins())
    return text.replace(REPO_PLACEHOLDER, repo).encode()


def _title(artifact: Artifact) -> str:
    return f"{artifact.config.get('architecture')} compressed by {artifact.block.method}"


def _snapshot(
    repo: str, revision: str | None, names: tuple[str, ...], token: str | None, again: bool = False
) -> Path:
    with hub_errors(repo):
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(names),
            token=token,
            library_name="vqzoo",
            library_version=version("vqzoo"),
            force_download=again,
        )
    return Path(os.fspath(folder))


def _verified(folder: Path, repo: str) -> Artifact:
    try:
        artifact = open_artifact(folder)
        verify_checksum(artifact)
    except ArtifactError as error:
        raise ArtifactError(f"{repo}: {error}") from error
    return artifact
