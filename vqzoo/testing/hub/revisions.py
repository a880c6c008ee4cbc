"""Answers about the trees, commits, branches and tags of a repository."""

import hashlib
from typing import Any
from urllib.parse import parse_qs

from vqzoo.testing.hub.descriptions import describe_file, timestamp
from vqzoo.testing.hub.messages import HubError, Request, Response, json_response, page_response
from vqzoo.testing.hub.state import HubState, resolve_commit


def tree(hub: HubState, request: Request, repo: str, revision: str, under: str = "") -> Response:
    """List the files and folders under a path."""
    commit = resolve_commit(hub.visible_repo(request, repo), revision)
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    prefix = f"{under.strip('/')}/" if under.strip("/") else ""
    entries: dict[str, Any] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        *folders, _ = path.removeprefix(prefix).split("/")
        for depth in range(1, len(folders) + 1 if recursive else min(2, len(folders) + 1)):
            folder = prefix + "/".join(folders[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
        if recursive or not folders:
            entries[path] = describe_file(path, file)
    if prefix and not entries:
        raise HubError(404, f"{under} does not exist on {revision}", "EntryNotFound")
    return page_response(request, hub.url, list(entries.values()))


def paths_info(hub: HubState, request: Request, repo: str, revision: str) -> Response:
    """Describe the files at given paths."""
    files = resolve_commit(hub.visible_repo(request, repo), revision).files
    if "json" in request.headers.get("content-type", ""):
        paths = request.json()["paths"]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    paths = [paths] if isinstance(paths, str) else paths
    return json_response([describe_file(path, files[path]) for path in paths if path in files])


def refs(hub: HubState, request: Request, repo: str) -> Response:
    """List branches, tags and pull requests."""
    visible = hub.visible_repo(request, repo)
    branches = {n: oid for n, oid in visible.branches.items() if not n.startswith("refs/")}
    pulls = {
        name.removeprefix("refs/"): oid
        for name, oid in visible.branches.items()
        if name.startswith("refs/pr/")
    }
    return json_response(
        {
            "branches": _refs("refs/heads/", branches),
            "tags": _refs("refs/tags/", visible.tags),
            "converts": [],
            "pullRequests": _refs("refs/", pulls),
        }
    )


def _refs(prefix: str, commits: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"{prefix}{name}", "targetCommit": oid}
        for name, oid in commits.items()
    ]


def commits(hub: HubState, request: Request, repo: str, revision: str) -> Response:
    """List the history of a revision."""
    visible = hub.visible_repo(request, repo)
    history = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": "",
            "date": timestamp(commit.time),
            "authors": [{"user": visible.namespace}],
        }
        for commit in visible.history(resolve_commit(visible, revision))
    ]
    return page_response(request, hub.url, history)


def create_branch(hub: HubState, request: Request, repo: str, name: str) -> Response:
    """Create a branch."""
    writable = hub.writable_repo(request, repo)
    if name in writable.branches:
        raise HubError(409, f"Reference already exists: {name}")
    start = resolve_commit(writable, request.json().get("startingPoint", "main"))
    writable.branches[name] = start.oid
    return json_response({})


def create_tag(hub: HubState, request: Request, repo: str, revision: str) -> Response:
    """Create a tag."""
    writable, name = hub.writable_repo(request, repo), request.json()["tag"]
    if name in writable.tags:
        raise HubError(409, f"Tag reference exists already: {name}")
    writable.tags[name] = resolve_commit(writable, revision).oid
    return json_response({})
