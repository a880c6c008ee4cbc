"""What the site's pages take from the program itself: the commands, the methods' options."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
_OPTIONS = re.compile(r"<!-- options of (\S+) -->")
_NEW_PLUGIN = re.compile(r"<!-- new-plugin (\S+) (\S+) -->")
_FILE = re.compile(r"<!-- file (\S+) -->")
_COMMANDS = "<!-- commands -->"
_MARKUP = re.compile(r"\[/?(?:bold|dim)?\]")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for."""
    markdown = _OPTIONS.sub(lambda match: options_table(match[1]), markdown)
    markdown = _NEW_PLUGIN.sub(lambda match: new_plugin_file(match[1], match[2]), markdown)
    markdown = _FILE.sub(lambda match: source_file(match[1]), markdown)
    return markdown.replace(_COMMANDS, commands()) if _COMMANDS in markdown else markdown


def options_table(method: str) -> str:
    """A method's options as a Markdown table."""
    from vqzoo.cli.methods import option_rows
    from vqzoo.plugin.manager import installed_plugins

    rows = option_rows(installed_plugins().method(method).item)
    if not rows:
        return "It has no options."
    return _table(("option", "default", "values", "meaning"), [(f"`{r[0]}`", *r[1:]) for r in rows])


def new_plugin_file(name: str, path: str) -> str:
    """A file that `vqzoo new-plugin NAME` writes, as a block of code."""
    from vqzoo.scaffold import write_plugin

    with TemporaryDirectory() as folder:
        text = (write_plugin(name, Path(folder)) / path).read_text(encoding="utf-8")
    return _block(path, text)


def source_file(path: str) -> str:
    """A file of the repository, as a block of code."""
    return _block(path, (ROOT / path).read_text(encoding="utf-8"))


def _block(title: str, text: str) -> str:
    return f'```python title="{title}"\n{text}```'


def commands() -> str:
    """Every command, its arguments and options."""
    from vqzoo.cli.main import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_commands(group, group.context_class(group, info_name="vqzoo")))


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            inner = command.context_class(command, info_name=name, parent=context)
            yield from _commands(command, inner)
        else:
            yield _command(name, command, context)


def _command(name: str, command: Any, parent: Any) -> str:
    context = command.context_class(command, info_name=name, parent=parent)
    text = _MARKUP.sub("", command.help or "").replace("<", "&lt;")
    rows = []
    for parameter in command.get_params(context):
        if parameter.name == "help":
            continue
        written = ", ".join(f"`{opt}`" for opt in parameter.opts)
        if parameter.param_type_name == "argument":
            written = f"`{parameter.metavar or parameter.name.upper()}`"
        rows.append((written, _plain(getattr(parameter, "help", "") or "")))
    usage = " ".join(command.collect_usage_pieces(context))
    path = f"{parent.command_path} {name}"
    return f"## {path}\n\n`{path} {usage}`\n\n{text}\n\n{_table(('', ''), rows)}"


def _plain(text: str) -> str:
    text = _MARKUP.sub("", text).replace("<", "&lt;")
    return re.sub(r"\n{2,}", "\n", text).strip()


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(_row(cells) for cells in [heads, ("---",) * len(heads), *rows])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
