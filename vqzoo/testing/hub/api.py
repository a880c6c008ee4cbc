"""The part of the Hub's HTTP interface that huggingface_hub uses for models and data sets.

Paths, payloads, headers and error codes follow https://huggingface.co/docs/hub/api and the client's
source. There is no Xet storage: clients need HF_HUB_DISABLE_XET=1.
"""

import re
from collections.abc import Callable
from urllib.parse import unquote

from vqzoo.testing.hub import downloads, repositories, revisions, uploads
from vqzoo.testing.hub.messages import HubError, Request, Response
from vqzoo.testing.hub.state import HubState
from vqzoo.testing.hub.store import DATASETS

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_MODEL = rf"/api/models/{_REPO}"
_LFS = r"/lfs/(?P<repo>(datasets/)?[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"
# Method, pattern of the path, and the function that gets the named groups as keyword arguments.
_ROUTES: tuple[tuple[str, str, Callable[..., Response]], ...] = (
    ("GET", "/api/whoami-v2", repositories.whoami),
    ("POST", "/api/repos/create", repositories.create),
    ("POST", "/api/validate-yaml", repositories.validate_yaml),
    ("GET", "/api/models", repositories.list_repos),
    ("GET", _MODEL, repositories.info),
    ("GET", "/api/models/(?P<repo>[^/]+)", repositories.info),  # none has such a name
    ("GET", rf"{_MODEL}/auth-check(?P<write>/write)?", repositories.auth_check),
    ("GET", rf"{_MODEL}/revision/{_REVISION}", repositories.info),
    ("GET", rf"{_MODEL}/tree/{_REVISION}(/(?P<under>.*))?", revisions.tree),
    ("POST", rf"{_MODEL}/paths-info/{_REVISION}", revisions.paths_info),
    ("GET", rf"{_MODEL}/refs", revisions.refs),
    ("GET", rf"{_MODEL}/commits/{_REVISION}", revisions.commits),
    ("POST", rf"{_MODEL}/branch/(?P<name>[^/]+)", revisions.create_branch),
    ("POST", rf"{_MODEL}/tag/{_REVISION}", revisions.create_tag),
    ("POST", rf"{_MODEL}/preupload/{_REVISION}", uploads.preupload),
    ("POST", rf"{_MODEL}/commit/{_REVISION}", uploads.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", uploads.lfs_batch),
    ("PUT", _LFS, uploads.lfs_put),
    ("PUT", rf"{_LFS}/(?P<part>\d+)", uploads.lfs_put_part),
    ("POST", rf"{_LFS}/complete", uploads.lfs_complete),
    ("POST", rf"{_LFS}/verify", uploads.lfs_verify),
    ("GET", rf"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", downloads.resolve),
)


def answer(hub: HubState, request: Request) -> Response:
    """Answer a request. HEAD is answered like GET; the caller leaves the body out."""
    method = "GET" if request.method == "HEAD" else request.method
    path = _path_of_models(request.path)
    try:
        for route_method, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, path) if route_method == method else None
            if match:
                groups = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                if path != request.path and "repo" in groups:
                    groups["repo"] = DATASETS + groups["repo"]
                with hub.lock:
                    return route(hub, request, **groups)
        raise HubError(404, f"no such endpoint: {method} {request.path}")
    except HubError as error:
        return error.response


def _path_of_models(path: str) -> str:
    """The path that means for models what `path` means for data sets; other paths stay."""
    if path.startswith("/api/datasets/"):
        return path.replace("datasets", "models", 1)
    return path.removeprefix("/datasets")
