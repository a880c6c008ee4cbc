"""`vqzoo results`."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.options import OnlyJson
from vqzoo.cli.terminal import command, print_text, printable, stdout
from vqzoo.errors import UsageError

if TYPE_CHECKING:
    from vqzoo.sweeps.results import Row


@command
def results(
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR", help="The folder or URL of a sweep.", show_default=False),
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only rows for which this holds: method=pq, top1>=90, state=failed; =, !=, <, <=, "
            ">, >=, and ~ for patterns: model~resnet*. Repeatable. --json shows all columns.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only this model; a pattern.")] = None,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Only artifacts of each model than which no other is smaller and as accurate.",
        ),
    ] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print all columns as CSV.")] = False,
    json_: OnlyJson = False,
) -> None:
    """Show the results of a sweep: a row for each cell that has finished or failed."""
    from vqzoo.sweeps.pareto import pareto_front
    from vqzoo.sweeps.place import open_table, parse_place
    from vqzoo.sweeps.results import COLUMNS
    from vqzoo.sweeps.where import parse_condition

    if csv_ and json_:
        raise UsageError("give --csv or --json, not both")
    conditions = [parse_condition(text) for text in where or []]
    if model is not None:
        conditions.append(("model", "GLOB", model))
    with open_table(parse_place(folder)) as table:
        rows = table.rows(conditions)
    if pareto:
        rows = pareto_front(rows)
    if json_:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif csv_:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    else:
        _print_rows(rows)


def _print_rows(rows: "Sequence[Row]") -> None:
    from vqzoo.cli.tables import plain_table
    from vqzoo.report.formatting import count_of, points

    several_layers = len({row.layers for row in rows}) > 1
    several_seeds = len({row.seed for row in rows}) > 1
    more = (("layers",) if several_layers else ()) + (("seed",) if several_seeds else ())
    numbers = ("request", "file bytes", "layers smaller", "top-1", "change")
    table = plain_table("cell", "model", "method", *more, numbers=numbers)
    for row in rows:
        figures = ("", "", "", "failed")
        if row.state == "done":
            figures = (
                f"{row.file_bytes:,}",
                f"{row.ratio_layers:.1f}x",
                _accuracy(row),
                "-" if row.change is None else points(row.change, row.ci95),
            )
        ratio = "" if row.requested_ratio is None else f"{row.requested_ratio:g}x"
        table.add_row(
            row.cell[:8],
            printable(row.model),
            printable(f"{row.method} {row.options}".strip()),
            *([printable(row.layers)] if several_layers else []),
            *([str(row.seed)] if several_seeds else []),
            ratio or row.requested_size or "",
            *figures,
        )
    console = stdout()
    console.print(table)
    for row in rows:
        if row.state == "failed":
            print_text(console, printable(f"{row.cell[:8]} failed: {row.reason} (log: {row.log})"))
    print_text(console, count_of(len(rows), "cell"))


def _accuracy(row: "Row") -> str:
    if row.top1 is not None:
        return f"{row.top1:.2f}%"
    return "-" if row.agreement is None else f"{row.agreement:.2f}% as dense"
