"""What the benchmark of packings found, as a table of ratios."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PackingResult:
    codes: str
    library: str
    """What comes first for `codes` is what rates are compared with."""
    bits: float
    """Of the stream, a code."""
    entropy: float
    """Of the codes, bits a code."""
    table: float
    """Share of the stream that is no codes: head and table; 0 where it is not told apart."""
    encoding: float
    """Seconds."""
    decoding: float
    """Seconds."""
    share: float
    """Of the codes that were worked on; times are divided by it."""


def packing_table(results: list[PackingResult]) -> str:
    """One line a result; times also as multiples of the first library's for the same codes."""
    lines = [
        f"{'codes':30}{'library':20}{'bits/code':>10}{'/entropy':>10}{'table':>8}"
        f"{'decode s':>10}{'x first':>9}{'encode s':>10}{'x first':>9}"
    ]
    first: dict[str, PackingResult] = {}
    for r in results:
        own = first.setdefault(r.codes, r)
        mark = "~" if r.share < 1 else " "
        lines.append(
            f"{r.codes:30}{r.library:20}{r.bits:10.4f}{r.bits / r.entropy:10.4f}{r.table:8.3%}"
            f"{mark}{r.decoding:9.3f}{r.decoding / own.decoding:9.2f}"
            f"{mark}{r.encoding:9.3f}{r.encoding / own.encoding:9.2f}"
        )
    lines.append("~ extrapolated from a part of the codes")
    return "\n".join(lines)
