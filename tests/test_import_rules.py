"""The import rules of pyproject.toml hold: which package may import which."""

import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import vqzoo

ROOT = Path(vqzoo.__file__).parents[1]
FORBIDDEN = """[importlinter]
root_package = vqzoo

[importlinter:contract:forbidden]
name = no command starts a run
type = forbidden
source_modules = vqzoo.cli
forbidden_modules = vqzoo.runs
"""


def test_every_import_rule_holds(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "Imports go down only" in printed


def test_the_rules_name_every_built_in_plugin() -> None:
    plugins = {
        path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file()
    }
    assert len(plugins) >= 5
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(rules["root_packages"]) == {"vqzoo"} | plugins
    contracts = {contract["name"]: contract for contract in rules["contracts"]}
    assert set(contracts["vqzoo imports no plugin"]["forbidden_modules"]) == plugins
    seeing = contracts["Plugins see vqzoo.plugin, vqzoo.numerics and vqzoo.errors alone"]
    assert set(seeing["source_modules"]) == plugins
    assert set(contracts["Plugins do not import each other"]["modules"]) == plugins


def test_a_broken_rule_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.ini"
    rules.write_text(FORBIDDEN)
    assert lint_imports(config_filename=str(rules), no_cache=True) == 1
    assert "vqzoo.cli.commands.run -> vqzoo.runs" in capsys.readouterr().out
