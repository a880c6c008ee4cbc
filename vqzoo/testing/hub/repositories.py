"""Answers about accounts, and about repositories as a whole."""

from datetime import UTC, datetime
from typing import Any

from vqzoo.testing.hub.card import metadata_errors
from vqzoo.testing.hub.descriptions import describe_repo
from vqzoo.testing.hub.messages import HubError, Request, Response, json_response, page_response
from vqzoo.testing.hub.state import HubState, may_see, resolve_commit
from vqzoo.testing.hub.store import DATASETS, Repo, StoredFile


def whoami(hub: HubState, request: Request) -> Response:
    """Describe the account that asks."""
    account = hub.known_account(request)
    role = "write" if account.write else "read"
    return json_response(
        {
            "type": "user",
            "name": account.name,
            "orgs": [{"name": name} for name in account.organizations],
            "auth": {"accessToken": {"displayName": "loopback", "role": role}},
        }
    )


def create(hub: HubState, request: Request) -> Response:
    """Create a repository."""
    account, fields = hub.known_account(request), request.json()
    namespace = fields.get("organization") or account.name
    if not account.write or namespace not in account.namespaces:
        raise HubError(403, f'You don\'t have the rights to create a model under "{namespace}"')
    kind = DATASETS if fields.get("type") == "dataset" else ""
    name = f"{kind}{namespace}/{fields['name']}"
    if name in hub.repos:
        error = {"error": "You already created this model repo", "url": f"{hub.url}/{name}"}
        return json_response(error, 409)
    private = fields.get("private") is True or fields.get("visibility") == "private"
    repo = Repo(name, private, datetime.now(UTC))
    repo.add_commit("main", {".gitattributes": StoredFile(b"")}, "initial commit")
    hub.repos[name] = repo
    return json_response({"url": f"{hub.url}/{name}", "name": repo.name})


def validate_yaml(hub: HubState, request: Request) -> Response:
    """Check the metadata of a card."""
    errors = metadata_errors(request.json()["content"])
    if errors:
        messages = [{"message": text} for text in errors]
        return json_response({"errors": messages, "warnings": []}, 400)
    return json_response({"errors": [], "warnings": []})


def list_repos(hub: HubState, request: Request) -> Response:
    """List the model repositories that match a query, the newest first."""
    account, query = hub.account(request), request.query
    matches = []
    for repo in sorted(hub.repos.values(), key=lambda repo: repo.created, reverse=True):
        if repo.id.startswith(DATASETS) or not may_see(account, repo):
            continue
        description = describe_repo(repo, resolve_commit(repo, "main"))
        if _matches(repo, description["tags"], query):
            if "cardData" not in query and "cardData" not in query.get("expand", []):
                del description["cardData"]
            if "full" not in query:
                del description["siblings"]
            matches.append(description)
    return page_response(request, hub.url, matches)


def _matches(repo: Repo, tags: list[str], query: dict[str, list[Any]]) -> bool:
    required = {*query.get("filter", []), *query.get("pipeline_tag", [])}
    return (
        required <= set(tags)
        and query.get("author", [repo.namespace])[0] == repo.namespace
        and query.get("search", [""])[0].lower() in repo.id.lower()
    )


def info(hub: HubState, request: Request, repo: str, revision: str = "main") -> Response:
    """Describe a repository at a revision."""
    visible = hub.visible_repo(request, repo)
    commit = resolve_commit(visible, revision)
    return json_response(describe_repo(visible, commit, blobs="blobs" in request.query))


def auth_check(hub: HubState, request: Request, repo: str, write: str = "") -> Response:
    """Say whether the account may read a repository, or write it."""
    if write:
        hub.writable_repo(request, repo)
    else:
        hub.visible_repo(request, repo)
    return json_response({})
