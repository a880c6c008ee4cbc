"""Strings from anywhere as text of a Markdown page: none of them can become markup."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|~&$^@]|:(?=//)|(?<=www)\.)")


def plain(text: object, limit: int = 200) -> str:
    """`text` on one line, without control characters, everything that Markdown knows escaped."""
    return _SPECIAL.sub(r"\\\1", _line(text, limit))


def code(text: object, limit: int = 400) -> str:
    """`text` as inline code that also a table's cell may hold."""
    shown = _line(text, limit).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table of cells that are Markdown already; columns in `right` are aligned right."""
    marks = ["---:" if index in set(right) else "---" for index in range(len(titles))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, marks, *rows])


def _line(text: object, limit: int) -> str:
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
