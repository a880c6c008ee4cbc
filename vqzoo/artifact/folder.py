"""Folders that are written whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.errors import UsageError

REQUEST_FILE = "asked.json"


def check_target(target: Path, digest: str, *, force: bool, option: str = "--force") -> None:
    """Refuse a finished folder, or a broken-off one of another run, unless forced.

    Raises:
        UsageError: says what lies there and what to do.
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
            f"{partial} is what another run left off: {option} discards it; or go elsewhere"
        )


def put_in_place(made: Path, target: Path) -> None:
    """Rename a whole folder to `target`; one that is there goes only when the new one stands."""
    target = target.resolve()
    old = target.with_name(target.name + ".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    made.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def partial_folder(target: Path) -> Path:
    target = target.resolve()
    return target.with_name(target.name + ".partial")


def request_digest(partial: Path) -> str | None:
    try:
        return str(json.loads((partial / REQUEST_FILE).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_new_folder(target: Path) -> None:
    """Refuse a place that is taken; an empty folder is not, such as the working directory.

    Raises:
        UsageError: says what to do.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not empty: choose another --out")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into, which becomes `target` when all is well.

    Where there is no `target` yet that is one rename: it is there whole, or not at all. An empty
    folder that is there already, such as the working directory, stays the same folder: its files
    are moved in one by one, and a failure meanwhile leaves those that were moved.

    Raises:
        UsageError: `target` is taken.
    """
    check_new_folder(target)
    whole = target.resolve()
    partial = whole.with_name(whole.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
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
