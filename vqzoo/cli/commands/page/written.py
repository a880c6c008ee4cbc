"""The page that commands write at their end."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vqzoo.cli.terminal import print_text, printable, stderr
from vqzoo.errors import VqzooError

if TYPE_CHECKING:
    from vqzoo.storage.store import Store

_PAGE_BYTES = 1 << 30


def write_page_of(folder: Path) -> Path | None:
    """Write the page of a folder into it; a page that cannot be written is a note on stderr.

    What the command itself was for is done by then, so nothing here fails it.

    Returns:
        The page; None where none was written.
    """
    from vqzoo.page.write import PAGE_FILE, write_page

    try:
        return write_page([folder], folder / PAGE_FILE).path
    except (VqzooError, OSError) as error:
        _say_why(error)
        return None


def write_page_at(store: "Store") -> str | None:
    """`write_page_of` for a folder at a URL; its page goes there, too.

    Returns:
        The page's URL; None where none was written.
    """
    from vqzoo.page.local_copies import local_folders
    from vqzoo.page.write import PAGE_FILE, check_page_target, write_page

    try:
        with local_folders([store.url]) as folders, TemporaryDirectory() as scratch:
            page = Path(scratch) / PAGE_FILE
            store.fetch(PAGE_FILE, page, _PAGE_BYTES)
            check_page_target(page)
            write_page(folders, page)
            store.put(page, PAGE_FILE)
        return f"{store.url}/{PAGE_FILE}"
    except (VqzooError, OSError) as error:
        _say_why(error)
        return None


def _say_why(error: Exception) -> None:
    print_text(stderr(), printable(f"no page was written: {error}"))
