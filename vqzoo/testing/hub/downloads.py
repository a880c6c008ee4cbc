"""Answers to downloads of files, whole or in ranges."""

import re

from vqzoo.testing.hub.messages import HubError, Request, Response
from vqzoo.testing.hub.state import HubState, resolve_commit


def resolve(hub: HubState, request: Request, repo: str, revision: str, path: str) -> Response:
    """Send a file, or the range of bytes that the request names."""
    commit = resolve_commit(hub.visible_repo(request, repo), revision)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    headers |= {"ETag": f'"{file.etag}"', "Content-Type": "application/octet-stream"}
    if file.sha256:
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
    byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if byte_range is None:
        return Response(200, headers, file.data)
    size, begin = len(file.data), int(byte_range[1])
    end = min(int(byte_range[2] or size - 1), size - 1)
    if begin > end:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
    return Response(206, headers, file.data[begin : end + 1])
