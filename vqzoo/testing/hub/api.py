"""What a Hub answers: the part of its HTTP interface that huggingface_hub speaks about models.

Paths, payloads, headers and error codes are those of https://huggingface.co/docs/hub/api and of
the client's own source. There is no Xet storage: clients need HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vqzoo.testing.hub.card import card_metadata, metadata_errors, repo_tags
from vqzoo.testing.hub.store import Account, Commit, Repo, StoredFile, stored_as_lfs

_PAGE = 100


@dataclass(frozen=True)
class Request:
    """A request whose body has been read."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, quoted as it came."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name."""
        return parse_qs(urlsplit(self.target).query)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Response:
    """An answer; its length is the body's."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HubError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: for the user.
        code: what clients tell errors apart by, in `X-Error-Code`.
        headers: further headers.
    """

    def __init__(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        known = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        body = json.dumps({"error": message}).encode()
        self.response = Response(
            status, {"Content-Type": "application/json", **known, **(headers or {})}, body
        )


class HubApi:
    """A Hub's repositories, accounts and answers.

    Args:
        url: where it is served.
        accounts: token -> account.
        part_size: LFS files larger than this many bytes are uploaded in parts of this size.
    """

    def __init__(self, url: str, accounts: dict[str, Account], part_size: int) -> None:
        self.url = url
        self.accounts = accounts
        self.part_size = part_size
        self.repos: dict[str, Repo] = {}
        self._parts: dict[tuple[str, int], bytes] = {}
        self._lock = threading.RLock()
        repo = r"(?P<repo>[^/]+/[^/]+)"
        routes: list[tuple[str, str, Callable[..., Response]]] = [
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", self._validate_yaml),
            ("GET", r"/api/models", self._list),
            ("GET", rf"/api/models/{repo}", self._info),
            ("GET", rf"/api/models/{repo}/revision/(?P<revision>[^/]+)", self._info),
            ("GET", rf"/api/models/{repo}/tree/(?P<revision>[^/]+)(/(?P<under>.*))?", self._tree),
            ("POST", rf"/api/models/{repo}/paths-info/(?P<revision>[^/]+)", self._paths_info),
            ("GET", rf"/api/models/{repo}/refs", self._refs),
            ("GET", rf"/api/models/{repo}/commits/(?P<revision>[^/]+)", self._commits),
            ("POST", rf"/api/models/{repo}/branch/(?P<name>[^/]+)", self._branch),
            ("POST", rf"/api/models/{repo}/tag/(?P<revision>[^/]+)", self._tag),
            ("POST", rf"/api/models/{repo}/preupload/(?P<revision>[^/]+)", self._preupload),
            ("POST", rf"/api/models/{repo}/commit/(?P<revision>[^/]+)", self._commit),
            ("POST", rf"/{repo}\.git/info/lfs/objects/batch", self._lfs_batch),
            ("PUT", rf"/lfs/{repo}/(?P<oid>[0-9a-f]{{64}})", self._lfs_put),
            ("PUT", rf"/lfs/{repo}/(?P<oid>[0-9a-f]{{64}})/(?P<part>\d+)", self._lfs_put_part),
            ("POST", rf"/lfs/{repo}/(?P<oid>[0-9a-f]{{64}})/complete", self._lfs_complete),
            ("POST", rf"/lfs/{repo}/(?P<oid>[0-9a-f]{{64}})/verify", self._lfs_verify),
            ("GET", rf"/{repo}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._resolve),
        ]
        self._routes = [(method, re.compile(path), answer) for method, path, answer in routes]

    def answer(self, request: Request) -> Response:
        """Answer a request; HEAD is answered as GET, whose body the caller leaves out."""
        method = "GET" if request.method == "HEAD" else request.method
        try:
            for wanted, pattern, route in self._routes:
                match = pattern.fullmatch(request.path)
                if match and wanted == method:
                    given = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    with self._lock:
                        return route(request, **given)
            raise HubError(404, f"no such endpoint: {method} {request.path}")
        except HubError as error:
            return error.response

    # Who asks, and what they may see and change.

    def _account(self, request: Request) -> Account | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts.get(token)

    def _repo(self, request: Request, name: str) -> Repo:
        account, repo = self._account(request), self.repos.get(name)
        hidden = repo is None or (
            repo.private and (account is None or repo.namespace not in account.namespaces)
        )
        if repo is None or hidden:
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, request: Request, name: str, *, pull_request: bool = False) -> Repo:
        repo = self._repo(request, name)
        account = self._account(request)
        if account is None:
            raise HubError(401, "Invalid username or password.")
        if not account.write:
            raise HubError(403, "this token has the role 'read': a token that may write is needed")
        if not pull_request and repo.namespace not in account.namespaces:
            raise HubError(403, f"{account.name} may not write to {repo.namespace}")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Accounts and repositories.

    def _whoami(self, request: Request) -> Response:
        account = self._account(request)
        if account is None:
            raise HubError(401, "Invalid username or password.")
        role = "write" if account.write else "read"
        return _json(
            {
                "type": "user",
                "name": account.name,
                "orgs": [{"name": name} for name in account.organizations],
                "auth": {"accessToken": {"displayName": "loopback", "role": role}},
            }
        )

    def _create(self, request: Request) -> Response:
        account, asked = self._account(request), request.json()
        if account is None:
            raise HubError(401, "Invalid username or password.")
        namespace = asked.get("organization") or account.name
        if not account.write or namespace not in account.namespaces:
            raise HubError(403, f'You don\'t have the rights to create a model under "{namespace}"')
        name = f"{namespace}/{asked['name']}"
        if name in self.repos:
            error = {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            return _json(error, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        repo = Repo(name, private, datetime.now(UTC))
        repo.add_commit("main", {".gitattributes": StoredFile(b"")}, "initial commit")
        self.repos[name] = repo
        return _json({"url": f"{self.url}/{name}", "name": name})

    def _validate_yaml(self, request: Request) -> Response:
        errors = metadata_errors(request.json()["content"])
        if errors:
            return _json({"errors": [{"message": text} for text in errors], "warnings": []}, 400)
        return _json({"errors": [], "warnings": []})

    def _list(self, request: Request) -> Response:
        account, query = self._account(request), request.query
        found = []
        for repo in sorted(self.repos.values(), key=lambda repo: repo.created, reverse=True):
            if repo.private and (account is None or repo.namespace not in account.namespaces):
                continue
            info = self._describe(repo, self._commit_of(repo, "main"))
            wanted = {*query.get("filter", []), *query.get("pipeline_tag", [])}
            if not wanted <= set(info["tags"]):
                continue
            if query.get("author", [repo.namespace])[0] != repo.namespace:
                continue
            if query.get("search", [""])[0].lower() not in repo.id.lower():
                continue
            if "cardData" not in query and "cardData" not in query.get("expand", []):
                del info["cardData"]
            if "full" not in query:
                del info["siblings"]
            found.append(info)
        return self._page(request, found)

    def _page(self, request: Request, found: list[Any]) -> Response:
        start = int(request.query.get("cursor", ["0"])[0])
        size = min(_PAGE, int(request.query.get("limit", [str(_PAGE)])[0]))
        answer = _json(found[start : start + size])
        if start + size < len(found):
            target = re.sub(r"[?&]cursor=\d+", "", request.target)
            mark = "&" if "?" in target else "?"
            answer.headers["Link"] = f'<{self.url}{target}{mark}cursor={start + size}>; rel="next"'
        return answer

    def _info(self, request: Request, repo: str, revision: str = "main") -> Response:
        found = self._repo(request, repo)
        commit = self._commit_of(found, revision)
        info = self._describe(found, commit)
        if "blobs" in request.query:
            info["siblings"] = [
                {"rfilename": path, "size": len(file.data), "blobId": file.oid}
                | ({"lfs": {**_lfs(file), "sha256": file.sha256}} if file.sha256 else {})
                for path, file in sorted(commit.files.items())
            ]
        return _json(info)

    def _describe(self, repo: Repo, commit: Commit) -> dict[str, Any]:
        readme = commit.files.get("README.md")
        card = card_metadata(readme.data.decode("utf-8", "replace")) if readme else {}
        return {
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.namespace,
            "sha": commit.oid,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "createdAt": _time(repo.created),
            "lastModified": _time(commit.time),
            "tags": repo_tags(card),
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
            "cardData": card,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    # Trees and revisions.

    def _tree(self, request: Request, repo: str, revision: str, under: str = "") -> Response:
        commit = self._commit_of(self._repo(request, repo), revision)
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
                entries[path] = _entry(path, file)
        if prefix and not entries:
            raise HubError(404, f"{under} does not exist on {revision}", "EntryNotFound")
        return self._page(request, list(entries.values()))

    def _paths_info(self, request: Request, repo: str, revision: str) -> Response:
        commit = self._commit_of(self._repo(request, repo), revision)
        if "json" in request.headers.get("content-type", ""):
            paths = request.json()["paths"]
        else:
            paths = parse_qs(request.body.decode()).get("paths", [])
        paths = [paths] if isinstance(paths, str) else paths
        return _json([_entry(path, commit.files[path]) for path in paths if path in commit.files])

    def _refs(self, request: Request, repo: str) -> Response:
        found = self._repo(request, repo)

        def refs(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
                for name, oid in names.items()
            ]

        pulls = {n: oid for n, oid in found.branches.items() if n.startswith("refs/pr/")}
        heads = {n: oid for n, oid in found.branches.items() if n not in pulls}
        numbers = {name.removeprefix("refs/"): oid for name, oid in pulls.items()}
        return _json(
            {
                "branches": refs("heads", heads),
                "tags": refs("tags", found.tags),
                "converts": [],
                "pullRequests": [
                    {"name": name, "ref": f"refs/{name}", "targetCommit": oid}
                    for name, oid in numbers.items()
                ],
            }
        )

    def _commits(self, request: Request, repo: str, revision: str) -> Response:
        found = self._repo(request, repo)
        history = found.history(self._commit_of(found, revision))
        return self._page(
            request,
            [
                {
                    "id": commit.oid,
                    "title": commit.title,
                    "message": "",
                    "date": _time(commit.time),
                    "authors": [{"user": found.namespace}],
                }
                for commit in history
            ],
        )

    def _branch(self, request: Request, repo: str, name: str) -> Response:
        found = self._writable(request, repo)
        if name in found.branches:
            raise HubError(409, f"Reference already exists: {name}")
        start = self._commit_of(found, request.json().get("startingPoint", "main"))
        found.branches[name] = start.oid
        return _json({})

    def _tag(self, request: Request, repo: str, revision: str) -> Response:
        found, name = self._writable(request, repo), request.json()["tag"]
        if name in found.tags:
            raise HubError(409, f"Tag reference exists already: {name}")
        found.tags[name] = self._commit_of(found, revision).oid
        return _json({})

    # Uploads.

    def _preupload(self, request: Request, repo: str, revision: str) -> Response:
        found = self._writable(request, repo, pull_request="create_pr" in request.query)
        files = self._commit_of(found, revision).files
        return _json(
            {
                "files": [
                    {
                        "path": asked["path"],
                        "uploadMode": (
                            "lfs" if stored_as_lfs(asked["path"], asked["size"]) else "regular"
                        ),
                        "shouldIgnore": False,
                        "oid": files[asked["path"]].etag if asked["path"] in files else None,
                    }
                    for asked in request.json()["files"]
                ]
            }
        )

    def _lfs_batch(self, request: Request, repo: str) -> Response:
        found = self._writable(request, repo, pull_request=True)
        objects = []
        for asked in request.json()["objects"]:
            oid, size = asked["oid"], asked["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in found.lfs:
                base = f"{self.url}/lfs/{repo}/{oid}"
                upload: dict[str, Any] = {"href": base}
                if size > self.part_size:
                    count = -(-size // self.part_size)
                    parts = {f"{part:05d}": f"{base}/{part}" for part in range(1, count + 1)}
                    header = {"chunk_size": str(self.part_size), **parts}
                    upload = {"href": f"{base}/complete", "header": header}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{base}/verify"}}
            objects.append(answer)
        return _json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, request: Request, repo: str, oid: str) -> Response:
        return self._keep(repo, oid, request.body)

    def _lfs_put_part(self, request: Request, repo: str, oid: str, part: str) -> Response:
        self._parts[oid, int(part)] = request.body
        return Response(200, {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def _lfs_complete(self, request: Request, repo: str, oid: str) -> Response:
        data = b""
        for part in request.json()["parts"]:
            piece = self._parts.pop((oid, part["partNumber"]), None)
            if piece is None or hashlib.md5(piece).hexdigest() != part["etag"].strip('"'):
                raise HubError(400, f"part {part['partNumber']} of {oid} is missing or differs")
            data += piece
        return self._keep(repo, oid, data)

    def _keep(self, repo: str, oid: str, data: bytes) -> Response:
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubError(400, f"the uploaded bytes do not have the sha256 {oid}")
        self.repos[repo].lfs[oid] = data
        return Response(200)

    def _lfs_verify(self, request: Request, repo: str, oid: str) -> Response:
        found = self._writable(request, repo, pull_request=True)
        if len(found.lfs.get(oid, b"")) != request.json()["size"]:
            raise HubError(404, f"{oid} has not been uploaded")
        return Response(200)

    def _commit(self, request: Request, repo: str, revision: str) -> Response:
        as_pull_request = "create_pr" in request.query
        found = self._writable(request, repo, pull_request=as_pull_request)
        base = self._commit_of(found, revision)
        files, title = dict(base.files), ""
        for line in request.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, base.oid):
                    raise HubError(412, "A commit has happened since. Please refresh and try again")
            elif operation["key"] == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                if value["oid"] not in found.lfs:
                    raise HubError(400, f"LFS object of {value['path']} has not been uploaded")
                files[value["path"]] = StoredFile(found.lfs[value["oid"]], value["oid"])
            elif operation["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise HubError(400, f"unknown operation {operation['key']}")
        readme = files.get("README.md")
        errors = metadata_errors(readme.data.decode()) if readme else []
        if errors:
            raise HubError(400, f"Invalid metadata in README.md: {errors[0]}")
        branch, answer = revision, {}
        if as_pull_request:
            number = 1 + sum(name.startswith("refs/pr/") for name in found.branches)
            branch = f"refs/pr/{number}"
            found.branches[branch] = base.oid
            answer = {"pullRequestUrl": f"{self.url}/{repo}/discussions/{number}"}
        elif revision not in found.branches:
            raise HubError(400, f"{revision} is not a branch")
        commit = found.add_commit(branch, files, title)
        url = f"{self.url}/{repo}/commit/{commit.oid}"
        return _json({"success": True, "commitOid": commit.oid, "commitUrl": url, **answer})

    # Downloads.

    def _resolve(self, request: Request, repo: str, revision: str, path: str) -> Response:
        commit = self._commit_of(self._repo(request, repo), revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        file = commit.files.get(path)
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound", headers)
        headers |= {"ETag": f'"{file.etag}"', "Content-Type": "application/octet-stream"}
        if file.sha256:
            headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if wanted is None:
            return Response(200, headers, file.data)
        size, begin = len(file.data), int(wanted[1])
        end = min(int(wanted[2] or size - 1), size - 1)
        if begin > end:
            raise HubError(
                416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"}
            )
        headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        return Response(206, headers, file.data[begin : end + 1])


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _entry(path: str, file: StoredFile) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "oid": file.oid, "size": len(file.data)}
    return entry | ({"lfs": {**_lfs(file), "oid": file.sha256}} if file.sha256 else {})


def _lfs(file: StoredFile) -> dict[str, int]:
    return {"size": len(file.data), "pointerSize": len(file.pointer)}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
