"""The program `vqzoo`."""

from typing import Annotated

import typer

from vqzoo.cli.compare import compare
from vqzoo.cli.evaluate import evaluate
from vqzoo.cli.export import export
from vqzoo.cli.finetune import finetune
from vqzoo.cli.hub import pull, push, search
from vqzoo.cli.inspect import inspect
from vqzoo.cli.methods import methods
from vqzoo.cli.models import models
from vqzoo.cli.new_plugin import new_plugin
from vqzoo.cli.plugins import plugins
from vqzoo.cli.run import run
from vqzoo.cli.terminal import flowing
from vqzoo.cli.zoo import app as zoo

app = typer.Typer(
    name="vqzoo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
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
    """Compress vision models by vector quantization, and measure what it cost.

    [bold]vqzoo run alexnet_mini.fmnist --method pq[/] compresses a trained network that comes with
    vqzoo and evaluates it, before and after, on 10,000 real images; no network is needed.
    [bold]vqzoo methods[/] lists the methods, [bold]vqzoo models[/] the models.
    """


app.command("run")(run)
app.command("compare")(compare)
app.command("finetune")(finetune)
app.command("eval")(evaluate)
app.command("inspect")(inspect)
app.command("push")(push)
app.command("pull")(pull)
app.command("search")(search)
app.command("export")(export)
app.command("methods")(methods)
app.command("models")(models)
app.command("plugins")(plugins)
app.add_typer(zoo, name="zoo")
app.command("new-plugin")(new_plugin)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
