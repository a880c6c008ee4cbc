"""The size after each stage of a run that fine-tuned."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vqzoo.cli.terminal import printable


def print_stages(console: Console, record: Mapping[str, Any]) -> None:
    """A table like Han, Mao, Dally's (2016, table 1): nothing where the run did not fine-tune."""
    if not record["stages"]:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage", overflow="fold")
    table.add_column("packing", no_wrap=True)
    for title in ("bytes", "ratio", "held out"):
        table.add_column(title, justify="right", no_wrap=True)
    dense = record["bytes"]["dense"]
    for stage in record["stages"]:
        reached = stage.get("validation_top1")
        table.add_row(
            escape(printable(stage["method"])),
            escape(printable(stage.get("packing", "fp32"))),
            f"{stage['bytes']:,}",
            f"{dense / stage['bytes']:.1f}x",
            "-" if reached is None else f"{reached:.2f}%",
        )
    console.print(table)
    console.print()
