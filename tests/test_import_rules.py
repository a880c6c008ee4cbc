"""The import rules of pyproject.toml hold: which package may import which."""

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


def test_a_broken_rule_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.ini"
    rules.write_text(FORBIDDEN)
    assert lint_imports(config_filename=str(rules), no_cache=True) == 1
    assert "vqzoo.cli.commands.run -> vqzoo.runs" in capsys.readouterr().out
