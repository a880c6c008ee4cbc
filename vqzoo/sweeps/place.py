"""Where a sweep's results are: a folder, or a URL."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vqzoo.artifact.files import cache_folder, sha256_text
from vqzoo.artifact.lock import folder_lock
from vqzoo.artifact.schema import REPORT_FILE
from vqzoo.errors import VqzooError
from vqzoo.execution.cell import Cell
from vqzoo.storage.store import Store, is_url
from vqzoo.sweeps.results import RESULTS_FILE, Results, open_results

CELLS, LOGS, SHARED = "cells", "logs", "shared"
_TABLE_BYTES = 4 << 30  # of a table in a store; 50,000 cells take 25 MB

Place = Path | Store


def parse_place(text: str) -> Place:
    """The folder or the URL that a text names.

    Raises:
        UsageError: the URL's protocol is unknown, or its package is not installed.
    """
    if not is_url(text):
        return Path(text)
    store = Store(text.rstrip("/"))
    store.check()
    return store


def describe_place(place: Place) -> str:
    """The place as the user wrote it."""
    return place.url if isinstance(place, Store) else str(place)


def place_lock(place: Place) -> AbstractContextManager[None]:
    """Hold the right to sweep into a place: among all processes that see the folder, or among those
    of this machine for a URL.

    Raises:
        VqzooError: see `folder_lock`.
    """
    if isinstance(place, Path):
        return folder_lock(place)
    return folder_lock(cache_folder() / "sweeps" / sha256_text(place.url)[:16])


def finished_cells(place: Place, cells: Sequence[Cell]) -> set[str]:
    """The names of the cells whose record is in the place.

    Raises:
        VqzooError: the store cannot be read.
    """
    if isinstance(place, Path):
        return {cell.name for cell in cells if (cell.folder / REPORT_FILE).is_file()}
    names = place.below(CELLS).names()
    return {cell.name for cell in cells if f"{cell.name}/{REPORT_FILE}" in names}


def has_table(place: Place) -> bool:
    """Whether the place has results.

    Raises:
        VqzooError: the store cannot be read.
    """
    if isinstance(place, Path):
        return (place / RESULTS_FILE).is_file()
    return place.has(RESULTS_FILE)


@contextmanager
def open_table(place: Place, *, create: bool = False) -> Iterator[Results]:
    """The results in a place; with `create`, what the block writes is kept, however it ends.

    A store's table is on this machine during the block, and uploaded behind it.

    Raises:
        VqzooError: the place has no results, or a file that is none.
    """
    if isinstance(place, Path):
        with open_results(place, create=create) as results:
            yield results
        return
    opened = False
    with TemporaryDirectory(prefix="vqzoo-") as scratch:
        file = Path(scratch) / RESULTS_FILE
        if not place.fetch(RESULTS_FILE, file, _TABLE_BYTES) and not create:
            raise VqzooError(
                f"{place.url} has no {RESULTS_FILE}: `vqzoo sweep` writes it in the end"
            )
        try:
            with open_results(file.parent, create=create, shown=place.url) as results:
                opened = True
                yield results
        finally:
            if opened and create:
                place.put(file, RESULTS_FILE)
