"""The page that commands write at their end."""

from pathlib import Path

from vqzoo.cli.terminal import print_text, printable, stderr
from vqzoo.errors import VqzooError


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
        print_text(stderr(), printable(f"no page was written: {error}"))
        return None
