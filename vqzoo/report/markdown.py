"""Turns untrusted strings into Markdown text that cannot become markup."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|~&$^@]|:(?=//)|(?<=www)\.)")


def plain(text: object, limit: int = 200) -> str:
    """`text` on one line of at most `limit` characters, control characters removed and everything
    that Markdown interprets escaped."""
    return _SPECIAL.sub(r"\\\1", _line(text, limit))


def code(text: object, limit: int = 400) -> str:
    """`text` as inline code, which a table cell may hold, too."""
    line = _line(text, limit).replace("`", "'").replace("|", "¦")
    return f"`{line}`" if line else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table whose cells are Markdown; the columns with an index in `right` are right-aligned."""
    right_aligned = set(right)
    alignments = ["---:" if index in right_aligned else "---" for index in range(len(titles))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, alignments, *rows])


def _line(text: object, limit: int) -> str:
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
