"""Reads method calls and options written as text: `NAME:name=value,...`."""

from vqzoo.errors import UsageError


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """Read `NAME[:name=value,...]`; the name may be `distribution:name`.

    Raises:
        UsageError: an option is not of that form.
    """
    head, colon, tail = text.rpartition(":")
    if not (colon and "=" in tail):
        return text, {}
    return head, parse_option_pairs([part for part in tail.split(",") if part])


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
