"""Answers to uploads: LFS objects, whole or in parts, and the commits that use them."""

import base64
import hashlib
import json
from typing import Any

from vqzoo.testing.hub.card import metadata_errors
from vqzoo.testing.hub.messages import HubError, Request, Response, json_response
from vqzoo.testing.hub.state import HubState, resolve_commit
from vqzoo.testing.hub.store import Commit, Repo, StoredFile, stored_as_lfs


def preupload(hub: HubState, request: Request, repo: str, revision: str) -> Response:
    """Say for each file whether it is to be uploaded as LFS, and which version is there."""
    writable = hub.writable_repo(request, repo, pull_request="create_pr" in request.query)
    stored = resolve_commit(writable, revision).files
    answers = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if stored_as_lfs(file["path"], file["size"]) else "regular",
            "shouldIgnore": False,
            "oid": stored[file["path"]].etag if file["path"] in stored else None,
        }
        for file in request.json()["files"]
    ]
    return json_response({"files": answers})


def lfs_batch(hub: HubState, request: Request, repo: str) -> Response:
    """Say where each LFS object is to be uploaded; nowhere if it is stored already."""
    writable = hub.writable_repo(request, repo, pull_request=True)
    objects = []
    for lfs_object in request.json()["objects"]:
        oid, size = lfs_object["oid"], lfs_object["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in writable.lfs:
            base = f"{hub.url}/lfs/{repo}/{oid}"
            upload: dict[str, Any] = {"href": base}
            if size > hub.part_size:
                count = -(-size // hub.part_size)
                parts = {f"{part:05d}": f"{base}/{part}" for part in range(1, count + 1)}
                header = {"chunk_size": str(hub.part_size), **parts}
                upload = {"href": f"{base}/complete", "header": header}
            answer["actions"] = {"upload": upload, "verify": {"href": f"{base}/verify"}}
        objects.append(answer)
    return json_response({"transfer": "basic", "objects": objects})


def lfs_put(hub: HubState, request: Request, repo: str, oid: str) -> Response:
    """Store an LFS object."""
    return _store(hub, repo, oid, request.body)


def lfs_put_part(hub: HubState, request: Request, repo: str, oid: str, part: str) -> Response:
    """Store a part of an LFS object."""
    hub.parts[oid, int(part)] = request.body
    return Response(200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def lfs_complete(hub: HubState, request: Request, repo: str, oid: str) -> Response:
    """Store an LFS object whose parts have been uploaded."""
    data = b""
    for part in request.json()["parts"]:
        piece = hub.parts.pop((oid, part["partNumber"]), None)
        if piece is None or hashlib.md5(piece).hexdigest() != part["etag"].strip('"'):
            raise HubError(400, f"part {part['partNumber']} of {oid} is missing or differs")
        data += piece
    return _store(hub, repo, oid, data)


def _store(hub: HubState, repo: str, oid: str, data: bytes) -> Response:
    if hashlib.sha256(data).hexdigest() != oid:
        raise HubError(400, f"the uploaded bytes do not have the sha256 {oid}")
    hub.repos[repo].lfs[oid] = data
    return Response(200)


def lfs_verify(hub: HubState, request: Request, repo: str, oid: str) -> Response:
    """Check that an LFS object has been stored."""
    writable = hub.writable_repo(request, repo, pull_request=True)
    if len(writable.lfs.get(oid, b"")) != request.json()["size"]:
        raise HubError(404, f"{oid} has not been uploaded")
    return Response(200)


def commit(hub: HubState, request: Request, repo: str, revision: str) -> Response:
    """Commit files to a branch, or to a pull request against it."""
    as_pull_request = "create_pr" in request.query
    writable = hub.writable_repo(request, repo, pull_request=as_pull_request)
    base = resolve_commit(writable, revision)
    files, title = _changed_files(writable, base, request.body)
    readme = files.get("README.md")
    errors = metadata_errors(readme.data.decode()) if readme else []
    if errors:
        raise HubError(400, f"Invalid metadata in README.md: {errors[0]}")
    branch, answer = revision, {}
    if as_pull_request:
        number = 1 + sum(name.startswith("refs/pr/") for name in writable.branches)
        branch = f"refs/pr/{number}"
        writable.branches[branch] = base.oid
        answer = {"pullRequestUrl": f"{hub.url}/{repo}/discussions/{number}"}
    elif revision not in writable.branches:
        raise HubError(400, f"{revision} is not a branch")
    added = writable.add_commit(branch, files, title)
    url = f"{hub.url}/{repo}/commit/{added.oid}"
    return json_response({"success": True, "commitOid": added.oid, "commitUrl": url, **answer})


def _changed_files(repo: Repo, base: Commit, body: bytes) -> tuple[dict[str, StoredFile], str]:
    """The files after the operations in `body`, one JSON object a line, and the commit's title."""
    files, title = dict(base.files), ""
    for line in body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, base.oid):
                raise HubError(412, "A commit has happened since. Please refresh and try again")
        elif operation["key"] == "file":
            files[value["path"]] = StoredFile(base64.b64decode(value["content"]))
        elif operation["key"] == "lfsFile":
            if value["oid"] not in repo.lfs:
                raise HubError(400, f"LFS object of {value['path']} has not been uploaded")
            files[value["path"]] = StoredFile(repo.lfs[value["oid"]], value["oid"])
        elif operation["key"] == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        else:
            raise HubError(400, f"unknown operation {operation['key']}")
    return files, title
