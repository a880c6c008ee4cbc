"""The plugins of this environment, and how VQZOO_PLUGINS chooses among them."""

import ast
import re
from pathlib import Path

import pytest

import vqzoo
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import forget_plugins, installed_plugins

CORE = Path(vqzoo.__file__).parent


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_names_the_plugins_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [status.origin.entry_point for status in installed_plugins().statuses]
    assert len(everything) >= 5
    chosen = everything[1:3]
    forget_plugins()
    monkeypatch.setenv("VQZOO_PLUGINS", f" {chosen[0]} ,{chosen[1]},")
    assert [s.origin.entry_point for s in installed_plugins().statuses] == sorted(chosen)


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_empty_loads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQZOO_PLUGINS", "")
    plugins = installed_plugins()
    assert plugins.statuses == []
    assert plugins.quantizers.names() == plugins.packings.names() == []


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_with_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQZOO_PLUGINS", "no-such-plugin")
    with pytest.raises(UsageError, match="VQZOO_PLUGINS names no-such-plugin; installed: "):
        installed_plugins()


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("command", ["--help", "methods", "plugins"])
def test_the_command_line_works_without_any_plugin(command: str, vqzoo) -> None:
    done = vqzoo(command, VQZOO_PLUGINS="")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.usefixtures("fresh_cache")
def test_the_command_line_lists_the_methods_of_the_plugins_that_are_loaded(vqzoo) -> None:
    method = installed_plugins().quantizers.names()[0]
    entry_point = installed_plugins().quantizers.get(method).origin.entry_point
    forget_plugins()
    done = vqzoo("methods", VQZOO_PLUGINS=entry_point)
    assert done.exit_code == 0, done.stderr
    assert re.search(rf"\b{method}\b", done.stdout)


def test_the_built_ins_come_through_entry_points() -> None:
    plugins = installed_plugins()
    assert all(status.problem is None for status in plugins.statuses)
    for registry in (plugins.quantizers, plugins.selectors, plugins.packings):
        assert list(registry)
        for entry in registry:
            module = type(entry.item).__module__
            assert not module.startswith("vqzoo."), f"{entry.name} lives in the core"


def test_the_core_names_no_method() -> None:
    plugins = installed_plugins()
    methods = {*plugins.quantizers.names(), *plugins.transforms.names()}
    modules = sorted(CORE.rglob("*.py"))
    assert len(modules) > 30
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in methods, f"{path}:{node.lineno} names {node.value}"
