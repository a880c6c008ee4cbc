"""`vqzoo plugins` and `vqzoo new-plugin`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.terminal import command, print_text, stdout


@command
def plugins() -> None:
    """List the installed plugins and what each provides, or why it was left out."""
    from rich.markup import escape
    from rich.table import Table

    from vqzoo.cli.diagnosis import ambiguous_names, provided
    from vqzoo.plugin.manager import installed_plugins

    installed = installed_plugins()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("plugin", "package", "module", "provides"):
        table.add_column(title)
    for status in installed.statuses:
        origin = status.origin
        table.add_row(
            escape(origin.entry_point),
            escape(f"{origin.distribution} {origin.version}"),
            escape(status.module),
            "[red]left out[/]" if status.problem else escape(provided(status)),
        )
    console = stdout()
    console.print(table)
    for status in installed.statuses:
        if status.problem:
            print_text(console, f"{status.origin.entry_point} is left out: {status.problem}")
    for line in ambiguous_names(installed):
        print_text(console, line)


@command
def new_plugin(
    name: Annotated[
        str,
        typer.Argument(
            help="The name of the package and its method, such as my-method.", show_default=False
        ),
    ],
    parent: Annotated[
        Path,
        typer.Option(
            "--in",
            help="The folder to write it in. [dim]default: the current one[/]",
            show_default=False,
        ),
    ] = Path(),
) -> None:
    """Write a new plugin: a small package with one working quantizer and its tests."""
    from vqzoo.scaffold import write_plugin

    folder = write_plugin(name, parent)
    console = stdout()
    print_text(console, f"{folder} is ready:")
    print_text(console, f"  pip install -e '{folder}[test]' && pytest {folder}")
    print_text(console, f"  vqzoo methods {name}")
    quantizer = folder / "src" / name.replace("-", "_") / "quantizer.py"
    print_text(console, f"The method is in {quantizer}.")
