"""Hooks of mkdocs: what the pages take from the program, and what Markdown alone cannot render."""

import itertools
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
_OPTIONS = re.compile(r"<!-- options of (\S+) -->")
_NEW_PLUGIN = re.compile(r"<!-- new-plugin (\S+) (\S+) -->")
_FILE = re.compile(r"<!-- file (\S+) -->")
_COMMANDS = "<!-- commands -->"
_RECORD_FIELDS = "<!-- record fields -->"
_MARKUP = re.compile(r"\[/?(?:bold|dim)?\]")
_SLOW_FENCE = re.compile(r"^```(\w+) slow$", re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_PLOT = re.compile(r'<img [^>]*src="([^"]+\.png)"[^>]*>')
_SHORT_CODE = re.compile(r"<code>([^<\n]{1,30})</code>")
_SHELL_OPTION = re.compile(r"(?<=</span>)--[a-z-]+(?=<)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the page's comments by what they name, and give slow blocks a title."""
    markdown = _OPTIONS.sub(lambda match: options_table(match[1]), markdown)
    markdown = _NEW_PLUGIN.sub(lambda match: new_plugin_file(match[1], match[2]), markdown)
    markdown = _FILE.sub(lambda match: source_file(match[1]), markdown)
    markdown = _SLOW_FENCE.sub(r'```{.\1 title="takes minutes"}', markdown)
    if _RECORD_FIELDS in markdown:
        markdown = markdown.replace(_RECORD_FIELDS, record_fields())
    return markdown.replace(_COMMANDS, commands()) if _COMMANDS in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, link plots to their full size, and keep together what a line break
    would tear apart: short code, options of commands, figures and their intervals."""
    html = _FORMULA.sub(lambda match: _mathml(match[2], display=match[1] == "div"), html)
    html = _PLOT.sub(r'<a href="\1">\g<0></a>', html)
    html = _SHORT_CODE.sub(r'<code class="unbroken">\1</code>', html)
    html = _SHELL_OPTION.sub(r'<span class="unbroken">\g<0></span>', html)
    return html.replace(" ± ", "&nbsp;±&nbsp;")


def _mathml(latex: str, *, display: bool) -> str:
    return convert(unescape(latex), display="block" if display else "inline")


def options_table(method: str) -> str:
    """A method's options as a Markdown table."""
    from vqzoo.cli.commands.methods import option_rows
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
    language = "yaml" if title.endswith(".yaml") else "python"
    return f'```{language} title="{title}"\n{text}```'


def record_fields() -> str:
    """A table of the fields of each JSON object in report.json, from its schema."""
    from vqzoo.report.record import Record

    schema = Record.model_json_schema()
    sections = [_fields_table(schema)]
    for name, paths in _object_paths(schema, schema["$defs"]).items():
        definition = schema["$defs"][name]
        heading = ", ".join(f"`{path}`" for path in paths)
        description = _plain(definition["description"])
        sections.append(f"## {heading}\n\n{description}\n\n{_fields_table(definition)}")
    return "\n\n".join(sections)


def _object_paths(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> dict[str, list[str]]:
    """Definition -> the paths at which its objects occur, such as `layers[].codes`."""
    paths: dict[str, list[str]] = {}
    for key, field in schema["properties"].items():
        brackets = "[]" if field.get("type") == "array" else ""
        for option in [field, *field.get("anyOf", []), field.get("items", {})]:
            if "$ref" in option:
                name, path = option["$ref"].rpartition("/")[2], f"{prefix}{key}{brackets}"
                paths.setdefault(name, []).append(path)
                inner = _object_paths(definitions[name], definitions, f"{path}.")
                for other, places in inner.items():
                    paths.setdefault(other, []).extend(places)
    return paths


def _fields_table(schema: dict[str, Any]) -> str:
    rows = []
    for key, field in schema["properties"].items():
        optional = "" if key in schema["required"] else ", optional"
        rows.append((f"`{key}`", _json_type(field) + optional, _plain(field["description"])))
    return _table(("key", "type", "meaning"), rows)


def _json_type(field: dict[str, Any]) -> str:
    """The JSON type of a field in words: "number or null", "list of objects"."""
    if "anyOf" in field:
        types = [_json_type(option) for option in field["anyOf"]]
        return " or ".join(name for name in types if name != "integer" or "number" not in types)
    if "$ref" in field:
        return "object"
    if field["type"] == "array":
        return f"list of {_json_type(field['items'])}s"
    if "additionalProperties" in field:
        values = field["additionalProperties"]
        return "object of scalars" if "anyOf" in values else f"object of {values['type']}s"
    return str(field["type"])


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
    """A command's section: how to call it, its help, and a table of arguments and options."""
    context = command.context_class(command, info_name=name, parent=parent)
    rows = []
    parameters = command.get_params(context)
    for parameter in sorted(parameters, key=lambda each: each.param_type_name != "argument"):
        if parameter.name == "help":
            continue
        spelling = ", ".join(f"`{option}`" for option in parameter.opts)
        if parameter.param_type_name == "argument":
            spelling = f"`{parameter.metavar or parameter.name.upper()}`"
        rows.append((spelling, _plain(getattr(parameter, "help", "") or "")))
    path = f"{parent.command_path} {name}"
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    table = _table(("argument or option", "meaning"), rows)
    return f"## {path}\n\n`{usage}`\n\n{_help(command.help or '')}\n\n{table}"


def _help(text: str) -> str:
    """A help text whose example commands form blocks of code."""
    sections = []
    paragraphs = text.split("\n\n")
    for is_command, group in itertools.groupby(paragraphs, lambda line: line.startswith("vqzoo ")):
        if is_command:
            sections.append("```sh\n" + "\n".join(group) + "\n```")
        else:
            sections.extend(_plain(paragraph) for paragraph in group)
    return "\n\n".join(sections)


def _plain(text: str) -> str:
    """Rich's markup removed, and Markdown's special characters escaped outside code."""
    pieces = _MARKUP.sub("", text).split("`")
    pieces[::2] = [piece.replace("<", "&lt;").replace("*", "\\*") for piece in pieces[::2]]
    return " ".join("`".join(pieces).split())


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(_row(cells) for cells in [heads, ("---",) * len(heads), *rows])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
