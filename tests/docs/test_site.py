"""The sources of the site are complete."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

import vqzoo
from vqzoo.cli.main import app
from vqzoo.plugin.manager import installed_plugins

ROOT = Path(vqzoo.__file__).parents[1]
DOCS = ROOT / "docs"
DESIGN = DOCS / "design.md"


def nav_files(entries: list) -> list[str]:
    files: list[str] = []
    for entry in entries:
        for value in entry.values():
            files += nav_files(value) if isinstance(value, list) else [value]
    return files


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    excluded = ("example_plugin", "examples")
    pages = {
        str(path.relative_to(DOCS))
        for path in DOCS.rglob("*.md")
        if path.relative_to(DOCS).parts[0] not in excluded
    }
    assert pages <= set(nav_files(config["nav"]))  # a strict build finds missing pages


def built_in(name: str) -> bool:
    return installed_plugins().method(name).origin.distribution == "vqzoo"


@pytest.mark.parametrize("name", [n for n in installed_plugins().quantizers.names() if built_in(n)])
def test_every_method_has_a_page(name: str) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text()
    assert text.startswith(f"# {name}: ")
    assert f"<!-- options of {name} -->" in text
    assert "**When to use it.**" in text
    assert "**Source.**" in text
    assert "$$" in text


@pytest.fixture
def site_hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module("site_hooks")
    del sys.modules["site_hooks"]


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that runs, by what users type."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_the_reference_lists_every_command_and_option(site_hooks: ModuleType) -> None:
    page = site_hooks.on_page_markdown((DOCS / "cli.md").read_text())
    table = site_hooks.options_table("pq")
    for name, command in commands(typer.main.get_command(app), "vqzoo"):
        section = re.search(rf"^## {name}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert section is not None, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[0]}`" in section[0]
        for paragraph in (command.help or "").split("\n\n"):
            assert "\n" not in paragraph  # terminals wrap lines themselves
    assert not re.search(r"\[/?(bold|dim)", page)
    for option in installed_plugins().method("pq").item.Options.model_fields:
        assert f"| `{option}` |" in table


def test_pages_show_the_tested_examples(site_hooks: ModuleType) -> None:
    """The pages show every example of a plugin, whole and unchanged."""
    pages = [(DOCS / name).read_text() for name in ("write-a-plugin.md", "observe.md")]
    page = site_hooks.on_page_markdown("".join(pages))
    assert "<!--" not in page
    examples = [*(DOCS / "examples").glob("*.py"), DOCS / "example_plugin/src/vqzoo_e8/__init__.py"]
    plugins = [text for path in examples if "@hookimpl" in (text := path.read_text())]
    assert len(plugins) >= 6
    for text in plugins:
        assert text in page
    with pytest.raises(FileNotFoundError):
        site_hooks.on_page_markdown("<!-- file docs/nowhere.py -->")


def test_the_design_draws_the_import_rules() -> None:
    """The drawing has the layers of pyproject.toml, in their order."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [c for c in rules["contracts"] if c["type"] == "layers"]
    layers = [sorted(layer.split(" | ")) for layer in contract["layers"]]
    drawing = re.search(r"^```text\n(cli .*?)^```$", DESIGN.read_text(), re.MULTILINE | re.DOTALL)
    assert drawing is not None
    lines = [re.split(r"\s{2,}", line)[0] for line in drawing[1].splitlines()]
    assert [sorted(line.split(", ")) for line in lines] == layers
