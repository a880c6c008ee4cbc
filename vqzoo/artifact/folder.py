"""Write folders whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.errors import UsageError

REQUEST_FILE = "asked.json"


def check_target(target: Path, digest: str, *, force: bool, option: str = "--force") -> None:
    """Refuse a finished folder, or an interrupted one of another run, unless `force` is set.

    Raises:
        UsageError: says what the folder holds and what to do.
    """
    if target.exists():
        if not (target / CONFIG_FILE).is_file():
            if not target.is_dir() or any(target.iterdir()):
                raise UsageError(f"{target} exists and is not an artifact: choose another --out")
        elif not force:
            raise UsageError(f"{target} is finished already: {option} replaces it")
    partial = partial_folder(target)
    if partial.exists() and not force and request_digest(partial) not in (None, digest):
        raise UsageError(
            f"{partial} belongs to another run, which was interrupted: {option} discards it, or "
            "choose another --out"
        )


def put_in_place(folder: Path, target: Path) -> None:
    """Rename a finished folder to `target`; an old `target` is removed once the new one stands."""
    target = target.resolve()
    old = target.with_name(target.name + ".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def partial_folder(target: Path) -> Path:
    """The folder beside `target` that a run fills before it is renamed."""
    target = target.resolve()
    return target.with_name(target.name + ".partial")


def request_digest(partial: Path) -> str | None:
    """The hash of the request that an interrupted run was working on; None if it is not known."""
    try:
        return str(json.loads((partial / REQUEST_FILE).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_new_folder(target: Path) -> None:
    """Refuse a path that is taken; an empty folder, such as the working directory, is not.

    Raises:
        UsageError: says what to do.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not empty: choose another --out")


@contextmanager
def naming_target(target: Path) -> Iterator[None]:
    """Name the folder that the user asked for where files beside it cannot be made in the block.

    Raises:
        UsageError: an OSError ended the block.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{target} cannot be made ({error.strerror or error}): choose another --out"
        ) from None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` to write into; it becomes `target` at the end of the block.

    If `target` does not exist, that is one rename: it appears whole or not at all. An empty folder
    that exists, such as the working directory, stays the same folder: the files are moved into it
    one by one, and a failure in between leaves those already moved.

    Raises:
        UsageError: `target` is taken, or cannot be made.
    """
    check_new_folder(target)
    whole, partial = target.resolve(), partial_folder(target)
    shutil.rmtree(partial, ignore_errors=True)
    with naming_target(target):
        partial.mkdir(parents=True)
    try:
        yield partial
        if whole.exists():
            for path in sorted(partial.iterdir()):
                path.replace(whole / path.name)
        else:
            partial.rename(whole)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replacement_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that replaces `target`, if it exists, at the end of the block.

    Unlike `new_folder` it leaves the folder of an interrupted run alone.
    """
    parent = target.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".vqzoo-") as scratch:
        folder = Path(scratch) / "artifact"
        folder.mkdir()
        yield folder
        put_in_place(folder, target)
