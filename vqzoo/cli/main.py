"""The program `vqzoo`."""

from typing import Annotated

import typer

from vqzoo.cli.commands.bench import bench
from vqzoo.cli.commands.compare import compare
from vqzoo.cli.commands.distill import distill
from vqzoo.cli.commands.doctor import doctor
from vqzoo.cli.commands.evaluate import evaluate
from vqzoo.cli.commands.export import export
from vqzoo.cli.commands.finetune import finetune
from vqzoo.cli.commands.hub import pull, push, search
from vqzoo.cli.commands.import_file import import_
from vqzoo.cli.commands.inspect import inspect
from vqzoo.cli.commands.methods import methods
from vqzoo.cli.commands.models import models
from vqzoo.cli.commands.page.report import report
from vqzoo.cli.commands.plugins import new_plugin, plugins
from vqzoo.cli.commands.run import run
from vqzoo.cli.commands.sweeps.results import results
from vqzoo.cli.commands.sweeps.sweep import sweep
from vqzoo.cli.commands.zoo import app as zoo
from vqzoo.cli.terminal import flowing, replace_what_cannot_be_encoded
from vqzoo.plugin.execution.quick_start import start_quickly

app = typer.Typer(
    name="vqzoo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"vqzoo {version('vqzoo')}")
        raise typer.Exit


@app.callback()
@flowing
def vqzoo(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Compress vision models by vector quantization, and measure what accuracy it costs.

    [bold]vqzoo run alexnet_mini.fmnist --method pq[/] compresses a trained network that comes with
    vqzoo and evaluates it on 10,000 real images, before and after; it needs no internet connection.
    [bold]vqzoo methods[/] lists the methods, [bold]vqzoo models[/] the models.
    """


app.command("run")(run)
app.command("compare")(compare)
app.command("sweep")(sweep)
app.command("results")(results)
app.command("finetune")(finetune)
app.command("distill")(distill)
app.command("eval")(evaluate)
app.command("import")(import_)
app.command("inspect")(inspect)
app.command("report")(report)
app.command("push")(push)
app.command("pull")(pull)
app.command("search")(search)
app.command("export")(export)
app.command("bench")(bench)
app.command("methods")(methods)
app.command("models")(models)
app.command("plugins")(plugins)
app.add_typer(zoo, name="zoo")
app.command("new-plugin")(new_plugin)
app.command("doctor")(doctor)


def main() -> None:
    """Run the program."""
    start_quickly()
    replace_what_cannot_be_encoded()
    app()


if __name__ == "__main__":
    main()
