"""`vqzoo new-plugin` writes what installs, passes its own tests and is found, without a change."""

from pathlib import Path

import pytest
from conftest import Environment, type_in_readme
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.errors import UsageError
from vqzoo.scaffold import write_plugin


def test_it_works_as_it_is(environment: Environment, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["new-plugin", "my-ternary", "--in", str(tmp_path)])
    assert made.exit_code == 0, made.output
    assert "my-ternary/src/my_ternary/quantizer.py" in made.stdout
    folder = tmp_path / "my-ternary"
    environment.install(folder)

    assert len(type_in_readme(environment, folder, tmp_path)) == 4
    assert len(list(tmp_path.glob("alexnet_mini.fmnist-my-ternary-*"))) == 1

    listed = environment.vqzoo("methods")
    assert "my-ternary 0.1.0" in listed.stdout
    assert "my-ternary" not in listed.stderr

    run = ["run", "test_resnet", "--weights", "random", "-m", "my-ternary", "--ratio", "8"]
    ran = environment.vqzoo(*run, "--layers", "all", "--out", "artifact")
    assert ran.returncode == 0, ran.stderr
    assert (environment.folder / "artifact" / "vqzoo.safetensors").is_file()


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
def test_a_name_that_would_not_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a valid name"):
        write_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-method").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_plugin("my-method", tmp_path)
    assert list((tmp_path / "my-method").iterdir()) == []
