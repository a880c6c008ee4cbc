"""A folder at a URL, through fsspec. Nothing that comes from it is unpickled or executed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.storage.hub_commits import (
    check_repository,
    commit_files,
    hub_store_errors,
    in_repository,
)


def is_url(text: str) -> bool:
    """Whether a text names a place for fsspec: "s3://bucket/sweep", "dir::file:///x"."""
    return "://" in text or "::" in text


@dataclass(frozen=True)
class Store:
    """A folder at a URL; files in it have relative names with slashes.

    Every method raises VqzooError, in one line that begins with the URL, if the store refuses or
    cannot be reached.

    Attributes:
        url: what fsspec opens, without a slash at its end.
        folder: a folder in there; empty for the URL's own.
    """

    url: str
    folder: str = ""

    @property
    def place(self) -> str:
        """The folder in messages."""
        return f"{self.url}/{self.folder}" if self.folder else self.url

    def check(self) -> None:
        """Check, without a connection, that the URL can be opened.

        Raises:
            UsageError: the protocol is unknown, or its package is not installed.
        """
        self._open()

    def check_writable(self) -> None:
        """Check, as far as one request can tell, that files can be put there: on the Hub alone.

        Raises:
            UsageError: there is no such repository.
        """
        fs, root = self._open()
        if in_repository(fs, root):
            with self._errors():
                check_repository(fs, root)

    def below(self, name: str) -> "Store":
        """The store of a folder in this one."""
        return Store(self.url, _joined(self.folder, name))

    def names(self) -> set[str]:
        """The names of all files in the folder, at any depth; none if there is no such folder.

        Raises:
            VqzooError: a name would leave the folder.
        """
        fs, root = self._open()
        with self._errors():
            fs.invalidate_cache()
            try:
                with _refusals(fs, root):
                    paths = fs.find(root)
            except FileNotFoundError:
                return set()
        return {self._relative(path, root) for path in map(str, paths)}

    def has(self, name: str) -> bool:
        """Whether the store has a file."""
        fs, root = self._open()
        with self._errors():
            fs.invalidate_cache()
            try:  # isfile would take a refusal of the Hub for no
                with _refusals(fs, root):
                    return bool(fs.info(_joined(root, name))["type"] == "file")
            except FileNotFoundError:
                return False

    def fetch(self, name: str, target: Path, most_bytes: int) -> bool:
        """Download a file, whole or not at all; False if the store does not have it.

        Args:
            name: of the file.
            target: where to put it; its folder is created.
            most_bytes: the size from which on it is refused.

        Raises:
            VqzooError: the file is too large.
        """
        fs, root = self._open()
        path = _joined(root, name)
        # Of two processes that fetch the same, each writes a file of its own.
        mine = target.with_name(f"{target.name}-{uuid4().hex}.tmp")
        try:
            with self._errors():
                fs.invalidate_cache()
                try:
                    with _refusals(fs, root):
                        info = fs.info(path)
                        if info["type"] != "file":
                            return False
                        if (size := info.get("size") or 0) > most_bytes:
                            raise VqzooError(f"{self.place}/{name} has {size:,} bytes: too large")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        fs.get_file(path, str(mine))
                except FileNotFoundError:
                    return False
            mine.replace(target)
            return True
        finally:
            mine.unlink(missing_ok=True)

    def put(self, file: Path, name: str) -> None:
        """Upload a file, in the place of one that may be there."""
        fs, root = self._open()
        path = _joined(root, name)
        with self._errors():
            if in_repository(fs, root):
                commit_files(fs, root, {name: file})
                return
            if _has_folders(fs):
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)

    def put_files(self, files: Mapping[str, Path], last: Sequence[str] = ()) -> None:
        """Upload files: to a repository of the Hub by one commit, elsewhere one after another.

        Args:
            files: name -> local file.
            last: names to upload behind all others: where they are, everything is.
        """
        fs, root = self._open()
        if in_repository(fs, root):
            with self._errors():
                commit_files(fs, root, files)
            return
        for name in sorted(files, key=lambda name: (name in last, name)):
            self.put(files[name], name)

    def _open(self) -> tuple[Any, str]:
        """fsspec's file system, and the folder's path in it."""
        # Imported here: it takes a while, and few commands need it.
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations

        try:
            fs, root = url_to_fs(self.url)
        except ImportError as error:
            protocol = self.url.partition("::")[0].partition("://")[0]
            needed = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
            if needed in ("", "fsspec"):
                raise UsageError(f"{self.url} cannot be opened: {one_line(error)}") from None
            raise UsageError(
                f"{self.url} needs the package {needed}: pip install {needed}"
            ) from None
        except Exception as error:  # each file system raises what it likes
            raise UsageError(f"{self.url} cannot be opened: {one_line(error)}") from None
        return fs, _joined(str(root).rstrip("/"), self.folder)

    def _relative(self, path: str, root: str) -> str:
        name = path.removeprefix(root).lstrip("/")
        if not path.startswith(root) or ".." in PurePosixPath(name).parts or "\\" in name:
            raise VqzooError(f"{self.place} has a file outside its folder: {path!r:.200}")
        return name

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except VqzooError as error:
            if str(error).startswith(self.url):
                raise
            raise type(error)(f"{self.place}: {error}") from error
        except Exception as error:  # botocore's, aiohttp's, the Hub's: nothing unites them
            raise VqzooError(f"{self.place}: {one_line(error)}") from error


def files_in(folder: Path) -> list[str]:
    """The names of all files in a local folder, at any depth, with slashes."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _refusals(fs: Any, root: str) -> AbstractContextManager[None]:
    """Inside, a repository that is missing is no missing file."""
    return hub_store_errors(root) if in_repository(fs, root) else nullcontext()


def _has_folders(fs: Any) -> bool:
    """Whether files need a folder that exists. Object stores have none, and are asynchronous."""
    from fsspec.implementations.dirfs import DirFileSystem

    while isinstance(fs, DirFileSystem):
        fs = fs.fs
    return not fs.async_impl
