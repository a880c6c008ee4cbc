"""A folder that is made whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqzoo.errors import UsageError


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
