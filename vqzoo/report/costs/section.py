"""The section of a model card on memory and speed."""

import math

from vqzoo.artifact.dtypes import BY_STORED_NAME
from vqzoo.artifact.reader import Artifact
from vqzoo.report.costs.record import BenchRecord, Latency, RuntimeRecord
from vqzoo.report.formatting import count_of, megabytes
from vqzoo.report.markdown import code, plain, table


def costs_section(artifact: Artifact, bench: BenchRecord | None) -> str:
    """Memory of the weights once decoded, and as stored; what a benchmark measured, if there is
    one."""
    tensors = artifact.dense_tensors().values()
    dense = sum(
        4 * math.prod(t.shape) if BY_STORED_NAME[t.dtype].is_floating_point else t.nbytes
        for t in tensors
    )
    decoded = dense + 4 * sum(math.prod(e.shape) for e in artifact.metadata.layers.values())
    codes = sum(artifact.layer_bytes(key) for key in artifact.metadata.layers)
    return (
        "## What it costs to run\n\n"
        "`vqzoo.load` decodes the weights, which gives an ordinary network: its weights take "
        f"{megabytes(decoded)} of memory. Stored as codes, codebooks and dense tensors they take "
        f"{megabytes(codes + sum(t.nbytes for t in tensors))}. {_speed(bench)}"
    )


def _speed(bench: BenchRecord | None) -> str:
    if bench is None or not bench.runtimes:
        return (
            "No speed-up is claimed: none was measured. `vqzoo bench --save` measures load time, "
            "latency and memory."
        )
    batches = [latency.batch for latency in bench.runtimes[0].latencies]
    titles = ("", "file", "load", "peak memory", *(f"batch {size}" for size in batches), "error")
    rows = [_row(runtime) for runtime in bench.runtimes]
    machine = bench.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"`vqzoo bench` measured on {plain(machine.cpu)}, {count_of(machine.threads, 'thread')}, "
        f"{plain(packages)}:\n\n{table(titles, rows, right=range(1, len(titles)))}\n\n"
        f"A latency is the median of {bench.repeats} passes, with its 95% confidence interval. "
        "Peak memory is that of the whole process, imported packages included, up to the first "
        "batch size. The error is the largest difference of a logit from the dense network's, "
        "relative to the largest."
    )


def _row(runtime: RuntimeRecord) -> tuple[str, ...]:
    return (code(runtime.name), *runtime_cells(runtime))


def runtime_cells(runtime: RuntimeRecord) -> tuple[str, ...]:
    """A runtime's figures as text: file, load time, peak memory up to the first batch size, the
    latency of each batch size, error."""
    peak = runtime.latencies[0].peak if runtime.latencies else None
    return (
        megabytes(runtime.bytes),
        f"{runtime.load:.2f} s",
        "-" if peak is None else megabytes(peak),
        *(_time(latency) for latency in runtime.latencies),
        f"{runtime.error:.0e}" if runtime.error else "0",
    )


def _time(latency: Latency) -> str:
    median, low, high = (
        f"{1e3 * value:.3g}" if value < 1 else f"{1e3 * value:.0f}"
        for value in (latency.median, latency.low, latency.high)
    )
    return f"{median} ms ({low}–{high})"
