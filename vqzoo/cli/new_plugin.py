"""`vqzoo new-plugin`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.terminal import command, stdout


@command
def new_plugin(
    name: Annotated[
        str, typer.Argument(help="Of the package and its method: my-method.", show_default=False)
    ],
    parent: Annotated[
        Path, typer.Option("--in", help="The folder in which to make it.", show_default=False)
    ] = Path(),
) -> None:
    """Write a new plugin: a small distribution with one quantizer that works, and its tests."""
    from vqzoo.scaffold import write_plugin

    folder = write_plugin(name, parent)
    console = stdout()
    console.print(f"{folder} is ready:", markup=False, soft_wrap=True)
    console.print(f"  pip install -e '{folder}[test]' && pytest {folder}", markup=False)
    console.print(f"  vqzoo methods {name}", markup=False)
    quantizer = folder / "src" / name.replace("-", "_") / "quantizer.py"
    console.print(f"The method is in {quantizer}.", markup=False, soft_wrap=True)
