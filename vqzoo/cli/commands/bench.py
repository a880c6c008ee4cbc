"""`vqzoo bench`."""

from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.options import ArtifactPlugins, OnlyJson, Threads
from vqzoo.cli.terminal import command, print_text, printable, stderr, stdout
from vqzoo.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.report.costs.record import BenchRecord


@command
def bench(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="A folder, or ORG/NAME on the Hub.", show_default=False
        ),
    ],
    batches: Annotated[
        str, typer.Option(metavar="N,N,...", help="Images in a pass; each size is timed.")
    ] = "1,8,32",
    repeats: Annotated[int, typer.Option(min=6, help="Timed passes at each batch size.")] = 20,
    threads: Threads = None,
    plugin: ArtifactPlugins = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="Keep the figures as bench.json in the folder; its card shows them."
        ),
    ] = False,
    json_: OnlyJson = False,
) -> None:
    """Measure what an artifact's network costs to run: load time, latency and memory on the CPU.

    Each runtime gets a process of its own. dense: timm's network with decoded weights, without
    vqzoo. decoded and codes: the modes of vqzoo.load. pt2: a program of torch.export, decoded at
    each pass. onnx: onnxruntime on ONNX with codes, which it decodes while it loads; onnx-codes:
    the same file, decoded at each pass. onnx-packed and onnx-int8, for Linear layers of rtn: codes
    stay packed, inputs in float32 and in int8. pte: ExecuTorch with XNNPACK, one image after
    another, decoded for each. openvino: OpenVINO, which decodes while it loads. A latency is the
    median with its 95% confidence interval.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.network.bench.bench import bench as measure
    from vqzoo.network.bench.save import check_folder, save_costs
    from vqzoo.plugin.files import plugin_files

    if save:
        check_folder(artifact)
    sizes = _sizes(batches)
    with plugin_files(plugin or []), TerminalWatcher(stderr()) as watcher:
        record = measure(artifact, batches=sizes, repeats=repeats, threads=threads, watcher=watcher)
        if save:
            save_costs(record, artifact)
    if json_:
        print(record.to_json())
        return
    console = stdout()
    console.print(_table(record))
    for line in _notes(record):
        print_text(console, line)


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--batches takes sizes such as 1,8,32, not {text!r:.40}") from None


def _table(record: "BenchRecord") -> "Table":
    from rich.table import Table

    from vqzoo.report.costs.section import runtime_cells

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("runtime", no_wrap=True)
    batches = [f"batch {latency.batch}" for latency in record.runtimes[0].latencies]
    for title in ("file", "load", "peak memory", *batches, "error"):
        table.add_column(title, justify="right")
    for runtime in record.runtimes:
        table.add_row(runtime.name, *runtime_cells(runtime))
    return table


def _notes(record: "BenchRecord") -> list[str]:
    """What the table leaves open."""
    from vqzoo.report.formatting import count_of, megabytes

    machine = record.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    cpu, threads = printable(machine.cpu), count_of(machine.threads, "thread")
    first = record.runtimes[0].latencies[0].batch
    lines = [f"on {cpu}, {threads}, {packages}; {record.repeats} passes at each batch size"]
    imported = {runtime.name: runtime.imported for runtime in record.runtimes}
    if all(value is not None for value in imported.values()):
        held = ", ".join(f"{name} {megabytes(value or 0)}" for name, value in imported.items())
        lines.append(
            f"peak memory: of the whole process, up to the passes at batch {first}; the imported "
            f"packages held {held} of it"
        )
    lines += [f"{name} is left out: {printable(why)}" for name, why in record.left_out.items()]
    return lines
