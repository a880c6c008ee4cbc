"""Copies of what lies at URLs, for the page to read."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from vqzoo.artifact.schema import CONFIG_FILE, REPORT_FILE, WEIGHTS_FILE
from vqzoo.errors import UsageError
from vqzoo.storage.store import Store, is_url

_RECORD_BYTES = 64 << 20
_FILE_BYTES = 1 << 40
_AT_ONCE = 16  # files: of a store far away, each takes a few round trips


@contextmanager
def local_folders(places: Sequence[str], *, weights: bool = False) -> Iterator[list[Path]]:
    """Folders on this machine for folders and URLs; copies are deleted behind the block.

    Args:
        places: folders, or URLs.
        weights: copy whole artifacts rather than their records alone.

    Raises:
        UsageError: a URL cannot be opened, or has no artifact with a record.
        VqzooError: a store cannot be read.
    """
    with TemporaryDirectory(prefix="vqzoo-") as scratch:
        folders = []
        for index, place in enumerate(places):
            if is_url(place):
                store = Store(place.rstrip("/"))
                # The page calls the copy by the last part of the URL.
                folder = Path(scratch, str(index), PurePosixPath(store.url).name or "store")
                _copy(store, folder, weights=weights)
                folders.append(folder)
            else:
                folders.append(Path(place))
        yield folders


def _copy(store: Store, folder: Path, *, weights: bool) -> None:
    names = store.names()
    records = sorted(name for name in names if PurePosixPath(name).name == REPORT_FILE)
    if not records:
        raise UsageError(f"{store.url} has no artifact with a {REPORT_FILE}")
    to_fetch = dict.fromkeys(records, _RECORD_BYTES)
    for record in records:
        others = (CONFIG_FILE, WEIGHTS_FILE) if weights else ()
        beside = (str(PurePosixPath(record).with_name(other)) for other in others)
        to_fetch |= {name: _FILE_BYTES for name in beside if name in names}

    def fetch(name: str) -> None:
        store.fetch(name, folder / name, to_fetch[name])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, to_fetch))
