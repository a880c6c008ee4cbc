"""A folder of files that are kept for later, up to a bound."""

import os
import time
from contextlib import suppress
from pathlib import Path


def mark_used(path: Path) -> None:
    """Set the time of a file to now: the file system's own clock may tick every few milliseconds
    only, and files of one tick would have no order.

    Raises:
        OSError: the file does not exist, or is another user's.
    """
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def drop_oldest(folder: Path, most_bytes: int, *, keep: Path) -> None:
    """Delete the files that were used longest ago, until the others have at most so many bytes.

    Args:
        folder: the folder.
        most_bytes: of all files together.
        keep: a file that stays in any case.
    """
    files = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was faster
            status = file.stat()
            files.append((status.st_mtime_ns, status.st_size, file))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > most_bytes and file != keep:
            with suppress(FileNotFoundError, PermissionError):  # or Windows has it in use
                file.unlink()
