"""The accounts and repositories of a Hub on loopback, and who may see and change them."""

import threading
from dataclasses import dataclass, field

from vqzoo.testing.hub.messages import HubError, Request
from vqzoo.testing.hub.store import Account, Commit, Repo


@dataclass
class HubState:
    """All that a Hub holds.

    Attributes:
        url: its address.
        accounts: token -> account.
        part_size: LFS files larger than this many bytes are uploaded in parts of this size.
        repos: repositories by id.
        parts: (sha256, part number) -> bytes of an upload in parts that is not complete.
        lock: held while a request is answered.
    """

    url: str
    accounts: dict[str, Account]
    part_size: int
    repos: dict[str, Repo] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def account(self, request: Request) -> Account | None:
        """The account whose token a request carries; None for a request without one.

        Raises:
            HubError: 401, the token is unknown.
        """
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts.get(token)

    def known_account(self, request: Request) -> Account:
        """The account whose token a request carries.

        Raises:
            HubError: 401, the request has no token, or an unknown one.
        """
        account = self.account(request)
        if account is None:
            raise HubError(401, "Invalid username or password.")
        return account

    def visible_repo(self, request: Request, name: str) -> Repo:
        """The repository `name`, if it exists and the account may see it.

        Raises:
            HubError: 404, or 401 without an account.
        """
        account, repo = self.account(request), self.repos.get(name)
        if repo is None or not may_see(account, repo):
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repo

    def writable_repo(self, request: Request, name: str, *, pull_request: bool = False) -> Repo:
        """The repository `name`, if the account may write to it, or open a pull request.

        Raises:
            HubError: 403 for a token without the right, else as `visible_repo`.
        """
        repo, account = self.visible_repo(request, name), self.known_account(request)
        if not account.write:
            raise HubError(403, "this token has the role 'read'; writing needs the role 'write'")
        if not pull_request and repo.namespace not in account.namespaces:
            raise HubError(403, f"{account.name} may not write to {repo.namespace}")
        return repo


def may_see(account: Account | None, repo: Repo) -> bool:
    """Whether an account may see a repository."""
    return not repo.private or (account is not None and repo.namespace in account.namespaces)


def resolve_commit(repo: Repo, revision: str) -> Commit:
    """The commit that a revision of a repository names.

    Raises:
        HubError: 404, there is no such revision.
    """
    commit = repo.resolve(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
