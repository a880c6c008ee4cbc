"""Conditions on results as users write them: `method=pq`, `top1>=90`, `model~resnet*`."""

import re
from typing import Any

from vqzoo.errors import UsageError, did_you_mean
from vqzoo.sweeps.results import COLUMNS, column_kind

_FORM = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)


def parse_condition(text: str) -> tuple[str, str, Any]:
    """The column, the operator of SQL and the value that a text names.

    Raises:
        UsageError: the text is not of that form, there is no such column, or its values are numbers
            and this is none.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--where {text}: write COLUMN=VALUE, as in method=pq or top1>=90")
    column, operator, value = match[1], match[2], match[3].strip()
    if column not in COLUMNS:
        hint = did_you_mean(column, COLUMNS)
        raise UsageError(
            f"--where {text}: no column called {column!r}{hint} There are: {', '.join(COLUMNS)}"
        )
    if operator == "~":
        return column, "GLOB", value
    if column_kind(column) is str:
        return column, operator, value
    try:
        return column, operator, float(value)
    except ValueError:
        raise UsageError(f"--where {text}: {column} is a number") from None
