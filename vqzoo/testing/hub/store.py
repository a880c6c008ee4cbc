"""The repositories of a Hub on loopback, in memory: files, commits, branches, pull requests."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

# What the default .gitattributes of the Hub stores as LFS, limited to files of models.
_LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".npz", ".h5", ".gz", ".zip", ".tar", ".pkl",
)  # fmt: skip
_LFS_BYTES = 10_000_000
DATASETS = "datasets/"  # how ids of repositories of data sets begin here


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit.

    Attributes:
        data: its bytes.
        sha256: hex, for a file stored as LFS; None for a file that git holds itself.
    """

    data: bytes
    sha256: str | None = None

    @property
    def oid(self) -> str:
        """Git's blob id, of the LFS pointer for a file stored as LFS."""
        return git_oid(self.pointer if self.sha256 else self.data)

    @property
    def pointer(self) -> bytes:
        """The LFS pointer as git holds it."""
        text = "version https://git-lfs.github.com/spec/v1\n"
        return f"{text}oid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def etag(self) -> str:
        """The ETag that the Hub sends: the sha256 of an LFS file, otherwise git's blob id."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """A commit: its id, title, time, the id of its parent, and all files by path."""

    oid: str
    title: str
    time: datetime
    parent: str | None
    files: Mapping[str, StoredFile]


@dataclass
class Repo:
    """A repository of models or data sets.

    Attributes:
        id: "org/name", or "datasets/org/name".
        private: whether only accounts of its namespace may see it.
        created: when it was created.
        commits: by id.
        branches: name -> commit id; pull requests are "refs/pr/1" and so on.
        tags: name -> commit id.
        lfs: sha256 -> uploaded bytes.
    """

    id: str
    private: bool
    created: datetime
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organization that owns it."""
        return self.name.partition("/")[0]

    @property
    def name(self) -> str:
        """Its id as clients write it, "org/name"."""
        return self.id.removeprefix(DATASETS)

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, tag, pull request or commit id; None if there is none."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def add_commit(self, branch: str, files: Mapping[str, StoredFile], title: str) -> Commit:
        """Commit a whole tree of files to a branch."""
        parent = self.branches.get(branch)
        digest = hashlib.sha1(f"{self.id} {parent} {title} {len(self.commits)}\n".encode())
        for path in sorted(files):
            digest.update(f"{path} {files[path].oid}\n".encode())
        commit = Commit(digest.hexdigest(), title, datetime.now(UTC), parent, dict(files))
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def history(self, commit: Commit) -> list[Commit]:
        """A commit and all before it, newest first."""
        commits = [commit]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits


@dataclass(frozen=True)
class Account:
    """The owner of a token: a user and their organizations, and whether the token may write."""

    name: str
    organizations: tuple[str, ...] = ()
    write: bool = True

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that it may have repositories in."""
        return (self.name, *self.organizations)


def git_oid(data: bytes) -> str:
    """Git's id of a blob: sha1 over "blob <size>", a zero byte and the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def stored_as_lfs(path: str, size: int) -> bool:
    """Whether the Hub would store a file as LFS."""
    return path.endswith(_LFS_SUFFIXES) or size >= _LFS_BYTES
