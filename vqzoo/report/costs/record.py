"""What a benchmark of an artifact measured: what bench.json and `vqzoo bench --json` hold."""

import json

from vqzoo.report.block import Block, Count


class Latency(Block):
    """The time of a pass at one batch size."""

    batch: Count
    """Images in a pass."""
    median: float
    """Seconds."""
    low: float
    """Lower end of a 95% confidence interval of the median, from order statistics, in seconds."""
    high: float
    """Its upper end."""
    peak: Count | None
    """Bytes of memory that the process held at most until then; null where unknown."""


class RuntimeRecord(Block):
    """One way of running the network, measured in a process of its own."""

    name: str
    """"dense", "decoded", "codes", or a runtime of exports: "onnx", "onnx-packed", "pte"..."""
    bytes: Count
    """Of the file that holds the weights."""
    load: float
    """Seconds from file to network, packages imported."""
    imported: Count | None
    """Bytes of memory held before loading; null where unknown."""
    latencies: tuple[Latency, ...]
    """By batch size, ascending."""
    error: float
    """The largest difference of a logit from the dense network's, relative to the largest."""


class Machine(Block):
    """What the figures hold for."""

    cpu: str
    """The processor's name."""
    threads: Count
    """That each runtime used."""
    packages: dict[str, str]
    """Name to version."""


class BenchRecord(Block):
    """A benchmark."""

    artifact: str
    """As the user named it."""
    artifact_bytes: Count
    """Of its weights file."""
    machine: Machine
    """Where it ran."""
    repeats: Count
    """Timed passes at each batch size."""
    runtimes: tuple[RuntimeRecord, ...]
    """In the order in which they ran."""
    left_out: dict[str, str]
    """Runtime to why it was not measured."""

    def to_json(self) -> str:
        """The text of bench.json, without a line break at its end."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
