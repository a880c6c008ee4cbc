"""`vqzoo methods`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqzoo.cli.completion import complete_method
from vqzoo.cli.terminal import command, print_text, stdout

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.console import Console

    from vqzoo.plugin.registry import Registered


@command
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method to explain.", autocompletion=complete_method, show_default=False
        ),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.py", help="A plugin in a single file; repeatable."),
    ] = None,
) -> None:
    """List the methods, or explain one: its options, their defaults, its source."""
    from rich.markup import escape
    from rich.table import Table

    from vqzoo.plugin.files import plugin_files
    from vqzoo.plugin.manager import installed_plugins

    with plugin_files(plugin or []):
        plugins = installed_plugins()
    console = stdout()
    if name is not None:
        _explain(console, plugins.method(name))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("method", "what it does", "plugin"):
        table.add_column(title)
    for entry in [*plugins.quantizers, *plugins.transforms]:
        origin = f"{entry.origin.distribution} {entry.origin.version}"
        table.add_row(escape(entry.name), escape(entry.item.summary), escape(origin))
    console.print(table)
    console.print("\n`vqzoo methods NAME` lists a method's options.")


def _explain(console: "Console", entry: "Registered[Any]") -> None:
    from rich.markup import escape
    from rich.table import Table

    method = entry.item
    print_text(console, f"[bold]{escape(entry.name)}[/]: {escape(method.summary)}", markup=True)
    if method.__doc__:
        print_text(console, method.__doc__.strip().splitlines()[0])
    if method.source:
        print_text(console, f"Source: {method.source}")
    print_text(
        console,
        f"Plugin: {entry.origin.distribution} {entry.origin.version}, "
        f"method version {method.version}",
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("option", "default", "values", "meaning"):
        table.add_column(title)
    rows = option_rows(method)
    for option, *cells in rows:
        table.add_row(f"-o {option}=", *map(escape, cells))
    if rows:
        console.print()
        console.print(table)


def option_rows(method: Any) -> list[tuple[str, str, str, str]]:
    """Name, default, values and meaning of each option."""
    properties = method.Options.model_json_schema().get("properties", {})
    return [
        (
            name,
            _default_text(field),
            _values(properties[name]),
            field.description or "",
        )
        for name, field in method.Options.model_fields.items()
    ]


def _default_text(field: "FieldInfo") -> str:
    if field.is_required():
        return "required"
    return "-" if field.default is None else str(field.default)


def _values(schema: dict[str, Any]) -> str:
    """The values that an option takes, from its JSON schema."""
    if "anyOf" in schema:
        return ", ".join(_values(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    kind = {"integer": "integer", "number": "number", "boolean": "true, false"}.get(
        schema.get("type", ""), "text"
    )
    if low is None and high is None:
        return kind
    if high is None:
        return f"{kind} from {low}"
    return f"{kind}, {low} to {high}"
