"""The JSON in which a Hub describes repositories and files."""

from datetime import datetime
from typing import Any

from vqzoo.testing.hub.card import card_metadata, repo_tags
from vqzoo.testing.hub.store import Commit, Repo, StoredFile


def describe_repo(repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """A repository as it is at a commit; with `blobs`, each file with its size and hashes."""
    readme = commit.files.get("README.md")
    card = card_metadata(readme.data.decode("utf-8", "replace")) if readme else {}
    siblings = [
        _sibling(path, file) if blobs else {"rfilename": path}
        for path, file in sorted(commit.files.items())
    ]
    return {
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.namespace,
        "sha": commit.oid,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": timestamp(repo.created),
        "lastModified": timestamp(commit.time),
        "tags": repo_tags(card),
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "cardData": card,
        "siblings": siblings,
    }


def describe_file(path: str, file: StoredFile) -> dict[str, Any]:
    """A file as an entry of a tree."""
    entry = {"type": "file", "path": path, "oid": file.oid, "size": len(file.data)}
    return entry | ({"lfs": {**_lfs_sizes(file), "oid": file.sha256}} if file.sha256 else {})


def timestamp(time: datetime) -> str:
    """A time as the Hub writes it, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def _sibling(path: str, file: StoredFile) -> dict[str, Any]:
    entry = {"rfilename": path, "size": len(file.data), "blobId": file.oid}
    return entry | ({"lfs": {**_lfs_sizes(file), "sha256": file.sha256}} if file.sha256 else {})


def _lfs_sizes(file: StoredFile) -> dict[str, int]:
    return {"size": len(file.data), "pointerSize": len(file.pointer)}
