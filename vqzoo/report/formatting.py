"""The figures of records as text, the same on terminals and on cards."""

from collections.abc import Mapping, Sequence
from typing import Any


def megabytes(count: int) -> str:
    """Bytes for people, 1 MB = 1,000,000 bytes."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def nats(value: float | None) -> str:
    """A divergence; logits that are not finite have none."""
    return "not finite" if value is None else f"{value:.4f} nats"


def decibels(value: float | None) -> str:
    """A ratio in dB; exact copies have none."""
    return "exact" if value is None else f"{value:.2f}"


def points(change: float, ci95: float | None) -> str:
    """A change in points with its 95% confidence interval, where there is one."""
    return f"{change:+.2f}" + ("" if ci95 is None else f" ± {ci95:.2f}")


def method_text(row: Mapping[str, Any]) -> str:
    """The method of a record's layer behind its transforms, as a rule names them: "turn+pq"."""
    return "+".join([*(step["name"] for step in row.get("transforms", ())), row["method"]])


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """The layers left dense, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return names


def options_texts(rows: Sequence[Mapping[str, Any]], *, fixed: bool) -> list[str]:
    """The options of each row of a record: "k=256 d=8".

    Args:
        fixed: also words and flags that are the same wherever the method has them.
    """
    values: dict[tuple[str, str], set[Any]] = {}
    for row in rows:
        for name, value in row["options"].items():
            values.setdefault((row["method"], name), set()).add(value)
    shown = {key for key, found in values.items() if fixed or len(found) > 1 or _is_number(*found)}
    return [
        " ".join(
            f"{name}={value}"
            for name, value in row["options"].items()
            if value is not None and (row["method"], name) in shown
        )
        for row in rows
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
