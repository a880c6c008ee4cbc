"""Figures of records as text, the same in terminals and on model cards."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqzoo.report.record import Record


def megabytes(count: int) -> str:
    """A size in bytes as kB or MB, with 1 MB = 1,000,000 bytes."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def nats(value: float | None) -> str:
    """A divergence; None stands for one that is not finite."""
    return "not finite" if value is None else f"{value:.4f} nats"


def decibels(value: float | None) -> str:
    """A signal-to-noise ratio in dB without its unit; None stands for an exact copy."""
    return "exact" if value is None else f"{value:.2f}"


def points(change: float, ci95: float | None) -> str:
    """A signed change in percentage points, with the half-width of its 95% confidence interval."""
    return f"{change:+.2f}" + ("" if ci95 is None else f" ± {ci95:.2f}")


def count_of(count: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun: "1 layer", "3 layers"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def printable_label(name: str) -> str:
    """A name as plots show it: printable ASCII, the end of a long one."""
    text = "".join(c if c.isprintable() and c.isascii() else "?" for c in name)
    return text if len(text) <= 40 else f"…{text[-39:]}"


def methods_text(counts: Mapping[str, int]) -> str:
    """How many layers have which method: "ecq 12, pq 3"."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def chosen_methods(record: "Record") -> list[tuple[str, int, int]]:
    """Of each method that a budget could choose or that a layer has: its name, and the layers and
    bytes that it got; most bytes first."""
    names = [] if record.budget is None else list(record.budget.methods)
    totals = {name: [0, 0] for name in (*names, *(row.method for row in record.layers))}
    for row in record.layers:
        totals[row.method][0] += 1
        totals[row.method][1] += row.bytes
    ranked = sorted(totals.items(), key=lambda item: -item[1][1])
    return [(name, layers, size) for name, (layers, size) in ranked]


def chosen_text(record: "Record") -> str:
    """The same in a line: "ecq 6 layers (151.0 kB), km 2 layers (4.0 kB), pq none"."""
    return ", ".join(
        f"{name} {count_of(layers, 'layer')} ({megabytes(size)})" if layers else f"{name} none"
        for name, layers, size in chosen_methods(record)
    )


def predicted_text(record: "Record") -> str | None:
    """A budget's predicted loss, and beside it what was measured; None where there is none."""
    if record.budget is None or record.budget.predicted_loss is None:
        return None
    text = f"a change of {record.budget.predicted_loss:.3g} squared logits"
    measured = None if record.agreement is None else record.agreement.logit_change
    return text if measured is None else f"{text}; measured {measured:.3g}"


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """Group the layers left dense by the reason."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return names
