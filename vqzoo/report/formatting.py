"""Figures of records as text, the same in terminals and on model cards."""

from collections.abc import Mapping


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


def methods_text(counts: Mapping[str, int]) -> str:
    """How many layers have which method: "ecq 12, pq 3"."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """Group the layers left dense by the reason."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return names
