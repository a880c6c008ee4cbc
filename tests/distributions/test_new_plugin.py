"""`vqzoo new-plugin` writes a package that installs, passes its tests and is found, unchanged."""

from pathlib import Path

import pytest
from environments import Environment, type_in_readme
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.errors import UsageError
from vqzoo.scaffold import write_plugin


@pytest.mark.slow
def test_it_works_as_it_is(environment: Environment, tmp_path: Path) -> None:
    written = CliRunner().invoke(app, ["new-plugin", "my-ternary", "--in", str(tmp_path)])
    assert written.exit_code == 0, written.output
    assert "my-ternary/src/my_ternary/quantizer.py" in written.stdout
    folder = tmp_path / "my-ternary"
    environment.install(folder)

    printed = type_in_readme(environment, folder, tmp_path)
    assert len(printed) == 3
    assert "my-ternary 0.1.0" in printed["vqzoo methods my-ternary"]
    assert "warning" not in printed["vqzoo methods my-ternary"]
    (artifact,) = tmp_path.glob("alexnet_mini.fmnist-my-ternary-*")
    assert (artifact / "vqzoo.safetensors").is_file()


def test_every_file_is_filled_in(tmp_path: Path) -> None:
    folder = write_plugin("my-method", tmp_path)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "pyproject.toml",
        "src/my_method/__init__.py",
        "src/my_method/quantizer.py",
        "tests/test_quantizer.py",
    ]
    for path in files:
        text = (folder / path).read_text()
        assert "$" not in text
        assert "my-method" in text
    assert "class MyMethod(Quantizer)" in (folder / "src/my_method/quantizer.py").read_text()


@pytest.mark.parametrize(
    "name", ["My-Method", "my_method", "-x", "x-", "9lives", "../up", "", "class"]
)
def test_an_invalid_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a valid name"):
        write_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-method").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_plugin("my-method", tmp_path)
    assert list((tmp_path / "my-method").iterdir()) == []
