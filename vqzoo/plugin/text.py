"""Reads method calls and options written as text: `NAME:name=value,...`."""

import json
from typing import Any

from vqzoo.errors import UsageError

_PYTHON = {"True": True, "False": False, "None": None}


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """Read `NAME[:name=value,...]`; the name may be `distribution:name`.

    Raises:
        UsageError: an option is not of that form.
    """
    head, colon, tail = text.rpartition(":")
    if not (colon and "=" in tail):
        return text, {}
    return head, parse_option_pairs([part for part in tail.split(",") if part])


def parse_methods(text: str) -> tuple[str, ...]:
    """Read `NAME[,NAME...]`: the methods of which a budget chooses one for each layer.

    Raises:
        UsageError: a name is empty, or stands there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"methods {text!r}: write NAME,NAME, as in 'ecq,pq'")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"methods {text!r}: {twice[0]} stands there twice")
    return names


def parse_option_pairs(pairs: list[str]) -> dict[str, str]:
    """Read `name=value` pairs.

    Raises:
        UsageError: one is not of that form.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"option {pair!r}: write name=value, as in -o k=256")
        options[name.strip()] = value.strip()
    return options


def parse_json_pairs(pairs: list[str]) -> dict[str, Any]:
    """Read `name=value` pairs: numbers, true, false, null and lists as JSON has them, other values
    as text.

    Raises:
        UsageError: one is not of that form.
    """
    return {name: _json_value(text) for name, text in parse_option_pairs(pairs).items()}


def json_value_text(value: Any) -> str:
    """The text that `parse_json_pairs` reads as this value."""
    plain = isinstance(value, str) and _json_value(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _json_value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN and the like are texts
