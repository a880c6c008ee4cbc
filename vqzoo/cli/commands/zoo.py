"""`vqzoo zoo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.commands.page.written import write_page_of
from vqzoo.cli.options import ExecutorName, Threads, need_folder
from vqzoo.cli.terminal import print_text, printable, resumable_command, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.zoo.build import Built
    from vqzoo.zoo.expected_size import ExpectedSize
    from vqzoo.zoo.recipes import ZooRecipe

_UNLIMITED = 10_000
_NUMBERS = ("layers", "fp32 bytes", "stored bytes", "file bytes", "size", "ratio")

app = typer.Typer(
    no_args_is_help=True, help="Build the zoo's artifacts from recipes.", rich_markup_mode="rich"
)


@app.callback()
def zoo() -> None:
    """Build the zoo's artifacts from recipes."""


@app.command("build")
@resumable_command
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAMES", help="Recipes to build; all by default.", show_default=False
        ),
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(help="A folder of recipes. [dim]default: those that come with vqzoo[/]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the artifacts' folders.")] = Path("zoo"),
    push_to: Annotated[
        str | None, typer.Option(metavar="ORG", help="Publish each artifact in this organization.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to measure on where a recipe does not say.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the artifacts and their exact sizes.")
    ] = False,
    executor: ExecutorName = None,
    threads: Threads = None,
) -> None:
    """Build many artifacts, one after another.

    Artifacts that are already finished are skipped (the hash of recipe and weights tells), and a
    failure does not stop the rest. The folder receives the page report.html, which shows all of
    them (see `vqzoo report`). If a build is interrupted, run the same command again to resume.
    """
    from vqzoo.calls.engines import started_executor
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.numerics.threads import use_threads
    from vqzoo.plugin.execution.engine import CallResources
    from vqzoo.plugin.manager import installed_plugins
    from vqzoo.zoo.build import build as build_all
    from vqzoo.zoo.recipes import find_recipes, recipes_folder, with_data

    need_folder(out)
    selected = find_recipes(names or [], recipes or recipes_folder())
    selected = [with_data(recipe, data) for recipe in selected]
    if dry_run:
        _print_plan(selected)
        return
    with (
        use_threads(threads),
        TerminalWatcher(stderr()) as watcher,
        started_executor(executor, CallResources(threads), installed_plugins()) as started,
    ):
        results = build_all(selected, watcher, out, push_to=push_to, executor=started)
    _print_results(results)
    if (page := write_page_of(out)) is not None:
        print_text(stdout(), f"page: {page}")
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


def _print_results(results: "Sequence[Built]") -> None:
    from rich.markup import escape

    from vqzoo.report.formatting import megabytes

    console = stdout()
    table = _table("recipe", "state", "size", "ratio", "artifact")
    for result in results:
        failed = result.state == "failed"
        table.add_row(
            result.name,
            f"[red]{result.state}[/]" if failed else result.state,
            "" if result.bytes is None else megabytes(result.bytes),
            "" if result.ratio is None else f"{result.ratio:.1f}x",
            "" if failed else escape(printable(result.detail)),
        )
    console.print(table)
    for result in results:
        if result.state == "failed":
            print_text(console, f"{result.name}: {printable(' '.join(result.detail.split()))}")


def _print_plan(recipes: "Sequence[ZooRecipe]") -> None:
    from vqzoo.plugin.manager import installed_plugins
    from vqzoo.zoo.build import plan
    from vqzoo.zoo.expected_size import SizeUnknownError

    sizes, unknown = [], []
    for recipe, size in plan(recipes, installed_plugins()):
        if isinstance(size, SizeUnknownError):
            unknown.append(f"{recipe.name}: the size is not known before it is built: {size}")
        else:
            sizes.append((recipe, size))
    console = stdout()
    if sizes:
        console.print(_size_table(sizes, console.width))
        print_text(console, "File bytes: exact size of vqzoo.safetensors, header included.")
    if any(not size.exact for _, size in sizes):
        print_text(console, "≤: an upper bound; what the packing saves depends on the codes.")
    for line in unknown:
        print_text(console, printable(line))


def _size_table(sizes: "Sequence[tuple[ZooRecipe, ExpectedSize]]", width: int) -> "Table":
    """One row per recipe; a narrow table leaves out the model, which the recipe's name tells."""
    from rich.console import Console

    table = _sizes(sizes, with_model=True)
    fits = Console(width=_UNLIMITED).measure(table).maximum <= width
    return table if fits else _sizes(sizes, with_model=False)


def _sizes(sizes: "Sequence[tuple[ZooRecipe, ExpectedSize]]", *, with_model: bool) -> "Table":
    models = ["model"] if with_model else []
    table = _table("recipe", *models, "layers", "fp32 bytes", "stored bytes", "ratio", "file bytes")
    for recipe, size in sizes:
        bound = "" if size.exact else "≤ "
        table.add_row(
            recipe.name,
            *([recipe.recipe.model] if with_model else []),
            f"{size.layers:,}",
            f"{size.dense_layers:,}",
            f"{bound}{size.compressed:,}",
            f"{size.dense_layers / size.compressed:.2f}x" if size.compressed else "-",
            f"{bound}{size.file:,}",
        )
    return table


def _table(*titles: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        number = title in _NUMBERS
        table.add_column(
            title, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return table
