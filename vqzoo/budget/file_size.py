"""Sizes of files as users write them: 2.3MB, 200kB, 812345."""

import re
from decimal import Decimal

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)
_LARGEST = 10**15


def parse_size(text: str) -> int:
    """The bytes of a size: a number, and kB, MB or GB, powers of ten; rounded down.

    Raises:
        ValueError: the text is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r:.40} is not a size: write 2.3MB, 200kB or bytes")
    count = int(Decimal(match[1]) * _UNITS[match[2]])
    if not 0 < count <= _LARGEST:
        raise ValueError(f"{text!r:.40} is no size of a file: write 2.3MB, 200kB or bytes")
    return count


def size_text(count: int) -> str:
    """The shortest text with the largest fitting unit up to MB that `parse_size` reads as `count`
    bytes."""
    for unit in ("MB", "kB"):
        if count >= _UNITS[unit]:
            number = Decimal(count) / _UNITS[unit]
            return f"{number.normalize():f}{unit}"
    return str(count)


def size_field(value: object) -> object:
    """The field of a recipe: a size in its canonical text.

    Raises:
        ValueError: the value is no size.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r:.40} is not a size: write 2.3MB, 200kB or bytes")
    return size_text(parse_size(str(value)))
