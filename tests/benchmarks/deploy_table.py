"""What networks cost to run in each runtime, as a Markdown table on stdout.

    python -m tests.benchmarks.deploy_table [--threads N] [--repeats N]
        [--method NAME] [-o NAME=VALUE] [MODEL ...]

By default, pq with its defaults compresses all layers of the embedded networks, and of ResNet-50
with random weights; `--method rtn -o format=int4` adds the rows of packed integers. Nothing else
should run on the machine meanwhile.
"""

import argparse
import tempfile
from pathlib import Path

import timm
import torch
from torch import nn

import vqzoo
from vqzoo.network.bench.bench import bench
from vqzoo.report.costs.record import BenchRecord
from vqzoo.report.costs.section import runtime_cells
from vqzoo.report.markdown import code, table

MODELS = ("alexnet_mini.fmnist", "mobilenet_mini.fmnist", "vit_mini.fmnist", "resnet50")
TITLES = ("network", "runtime", "file", "load", "peak memory", "batch 1", "error")


def main() -> None:
    """Compress the networks, measure them, and print the table."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    words.add_argument("--threads", type=int, default=None)
    words.add_argument("--repeats", type=int, default=20)
    words.add_argument("--method", default="pq")
    words.add_argument("-o", dest="options", action="append", default=[], metavar="NAME=VALUE")
    options = words.parse_args()
    chosen = dict(option.split("=", 1) for option in options.options)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as parent:
        for name in options.models:
            folder = Path(parent) / name
            small = vqzoo.compress(_network(name), options.method, layers="all", **chosen)
            small.save(folder)
            record = bench(folder, batches=[1], repeats=options.repeats, threads=options.threads)
            rows += _rows(name, record)
    print(table(TITLES, rows, right=range(2, len(TITLES))))
    machine = record.machine
    packages = ", ".join(f"{package} {version}" for package, version in machine.packages.items())
    print(f"\n{machine.cpu}, {machine.threads} threads, {packages}; {options.repeats} passes")


def _network(name: str) -> nn.Module:
    """An embedded network with its weights; any other with random ones."""
    vqzoo.register_models()
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=name.endswith(".fmnist")).eval()


def _rows(name: str, record: BenchRecord) -> list[tuple[str, ...]]:
    rows = [(code(r.name), *runtime_cells(r)) for r in record.runtimes]
    rows += [(code(kind), *["-"] * 5) for kind in record.left_out]
    return [(code(name) if place == 0 else "", *row) for place, row in enumerate(rows)]


if __name__ == "__main__":
    main()
