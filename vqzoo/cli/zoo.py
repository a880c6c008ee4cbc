"""`vqzoo zoo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.options import Threads
from vqzoo.cli.terminal import command, printable, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.zoo.recipes import ZooRecipe

app = typer.Typer(
    no_args_is_help=True, help="Build the zoo's artifacts from recipes.", rich_markup_mode="rich"
)


@app.callback()
def zoo() -> None:
    """Build the zoo's artifacts from recipes."""


@app.command("build")
@command
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]", help="Recipes; all unless given.", show_default=False),
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(help="A folder of recipes. [dim]default: those that come with vqzoo[/]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the artifacts' folders go.")] = Path("zoo"),
    push_to: Annotated[
        str | None, typer.Option(metavar="ORG", help="Publish each in this organization.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to measure those on whose recipe names nothing.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be built, and its exact size.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Build many artifacts, one after the other.

    What is finished already is skipped (by the hash of recipe and weights), a failure does not
    stop the rest, and the same command goes on where it was left.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.threads import limit_threads
    from vqzoo.zoo.build import build as build_all
    from vqzoo.zoo.recipes import find_recipes, recipes_folder, with_data

    chosen = [with_data(r, data) for r in find_recipes(names or [], recipes or recipes_folder())]
    if dry_run:
        _print_plan(chosen)
        return
    with limit_threads(threads), TerminalWatcher(stderr()) as watcher:
        built = build_all(chosen, watcher, out, push_to=push_to)
    from rich.markup import escape

    from vqzoo.report.formatting import megabytes

    table = _table("recipe", "state", "size", "ratio", "where, or why not")
    for one in built:
        table.add_row(
            one.name,
            f"[red]{one.state}[/]" if one.state == "failed" else one.state,
            "" if one.bytes is None else megabytes(one.bytes),
            "" if one.ratio is None else f"{one.ratio:.1f}x",
            escape(printable(" ".join(one.detail.split()))),
        )
    stdout().print(table)
    if any(one.state == "failed" for one in built):
        raise typer.Exit(1)


def _print_plan(chosen: "Sequence[ZooRecipe]") -> None:
    from vqzoo.plugin.manager import installed_plugins
    from vqzoo.zoo.build import plan
    from vqzoo.zoo.expected_size import SizeUnknownError

    titles = ("recipe", "model", "weights", "fp32 bytes", "stored bytes", "ratio", "file bytes")
    table = _table(*titles)
    unknown, inexact = [], False
    for recipe, size in plan(chosen, installed_plugins()):
        if isinstance(size, SizeUnknownError):
            unknown.append(f"{recipe.name}: size not known before it is built: {size}")
            continue
        most = "" if size.exact else "≤ "
        inexact = inexact or not size.exact
        table.add_row(
            recipe.name,
            recipe.recipe.model,
            f"{size.layers:,}",
            f"{size.dense_layers:,}",
            f"{most}{size.compressed:,}",
            f"{size.dense_layers / size.compressed:.2f}x" if size.compressed else "-",
            f"{most}{size.file:,}",
        )
    console = stdout()
    if table.rows:
        console.print(table)
        console.print("File bytes: of vqzoo.safetensors, its header included, exactly.")
    if inexact:
        console.print(
            "≤: at most so many; the packing's streams are as long as the codes make them."
        )
    for line in unknown:
        console.print(printable(line), markup=False)


def _table(*titles: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        numbers = title in ("size", "ratio", "weights") or "bytes" in title
        table.add_column(title, justify="right" if numbers else "left", overflow="fold")
    return table
