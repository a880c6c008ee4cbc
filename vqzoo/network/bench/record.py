"""What a benchmark of an artifact measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

FEWEST_PASSES = 6  # of which the whole range holds the median with 95% confidence


@dataclass(frozen=True)
class Latency:
    """The time of a pass at one batch size.

    Attributes:
        batch: images in a pass.
        median: seconds.
        low, high: a 95% confidence interval of the median, from order statistics.
        peak: bytes of memory that the process held at most until then; None where unknown.
    """

    batch: int
    median: float
    low: float
    high: float
    peak: int | None


@dataclass(frozen=True)
class RuntimeRecord:
    """One way of running the network, measured in a process of its own.

    Attributes:
        name: "dense", "decoded", "codes", "onnx" or "onnx-codes".
        bytes: of the file that holds the weights.
        load: seconds from file to network, packages imported.
        imported: bytes of memory held before loading; None where unknown.
        latencies: by batch size, ascending.
        error: the largest difference of a logit from the dense network's, relative to the largest.
    """

    name: str
    bytes: int
    load: float
    imported: int | None
    latencies: tuple[Latency, ...]
    error: float


@dataclass(frozen=True)
class Machine:
    """What the figures hold for.

    Attributes:
        cpu: the processor's name.
        threads: that each runtime used.
        packages: name -> version.
    """

    cpu: str
    threads: int
    packages: dict[str, str]


@dataclass(frozen=True)
class BenchRecord:
    """A benchmark.

    Attributes:
        artifact: as the user named it.
        machine: where it ran.
        repeats: timed passes at each batch size.
        runtimes: in the order in which they ran.
        left_out: runtime -> why it was not measured.
    """

    artifact: str
    machine: Machine
    repeats: int
    runtimes: tuple[RuntimeRecord, ...]
    left_out: dict[str, str]


def latency(batch: int, seconds: Sequence[float], peak: int | None) -> Latency:
    """The median of at least `FEWEST_PASSES` times, and the interval between two order statistics
    that holds the true median with at least 95% confidence (binomial, without assumptions)."""
    ordered = sorted(seconds)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    rank, outside = 0, 1 / 2**count
    while 2 * outside <= 0.05:
        rank += 1
        outside += comb(count, rank) / 2**count
    return Latency(batch, middle, ordered[rank - 1], ordered[count - rank], peak)
