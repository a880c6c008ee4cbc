"""`vqzoo models`."""

from typing import Annotated

import typer

from vqzoo.cli.terminal import command, stdout


@command
def models(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="FILTER",
            help="Part of a name, or a pattern such as 'resnet*'.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the models with pretrained weights: those that come with vqzoo, and timm's."""
    import timm

    from vqzoo.errors import UsageError
    from vqzoo.models.embedded import is_embedded
    from vqzoo.models.registration import register_models

    register_models()
    is_glob = pattern and set(pattern) & set("*?[")
    names = timm.list_pretrained(pattern if is_glob else f"*{pattern or ''}*")
    if not names:
        raise UsageError(f"no model matches {pattern!r}")
    console = stdout()
    for name in names:
        note = "  [dim]comes with vqzoo[/]" if is_embedded(name) else ""
        console.print(name + note, soft_wrap=True)
