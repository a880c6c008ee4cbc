"""Lets one process at a time write an artifact's folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vqzoo.artifact.folder import naming_target
from vqzoo.errors import VqzooError


@contextmanager
def folder_lock(target: Path) -> Iterator[None]:
    """Hold the right to write `target` and its `.partial` folder for the block.

    The operating system releases the lock when its process ends, however it ends, so a lock file
    that a killed run left behind blocks nobody.

    Raises:
        UsageError: the folder's parent cannot be made or written to.
        VqzooError: another process holds the lock; the message names its process and host.
    """
    path = _lock_file(target)
    with naming_target(target):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise VqzooError(
            f"{target} is being written by {_owner(path)}: wait until it has finished, or choose "
            "another --out"
        ) from None
    try:
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _lock_file(target: Path) -> Path:
    target = target.resolve()
    return target.with_name(f".{target.name}.lock")


def _owner(path: Path) -> str:
    """The process that wrote the lock file."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(owner['pid'])} on {str(owner['host'])!r:.80}"
    return "another process"
