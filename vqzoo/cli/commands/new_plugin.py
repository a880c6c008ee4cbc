"""`vqzoo new-plugin`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.terminal import command, print_text, stdout


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
