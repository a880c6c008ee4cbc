"""docs/example_plugin: built as a wheel, installed, used; missed where it is not installed."""

from pathlib import Path

import pytest
from conftest import Build, Environment, type_in_readme

import vqzoo
from vqzoo.errors import ArtifactError

SOURCE = Path(vqzoo.__file__).parents[1] / "docs" / "example_plugin"


def test_from_a_wheel_to_an_artifact(
    environment: Environment, build: Build, tmp_path: Path
) -> None:
    environment.install(build(SOURCE))
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(SOURCE / "tests")]
    tested = environment.run("python", *tests, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert len(type_in_readme(environment, SOURCE, tmp_path)) == 3

    run = ["run", "test_resnet", "--weights", "random", "-m", "e8", "--ratio", "8"]
    ran = environment.vqzoo(*run, "--layers", "all", "--out", "artifact", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "e8" in environment.vqzoo("methods").stdout
    load = "import vqzoo; print(type(vqzoo.load('artifact')).__name__)"
    loaded = environment.run("python", "-c", load, cwd=tmp_path)
    assert loaded.stdout.strip() == "ResNet", loaded.stderr

    with pytest.raises(ArtifactError) as caught:
        vqzoo.load(tmp_path / "artifact")
    told = str(caught.value)
    assert "needs method 'e8', which no installed plugin brings" in told
    assert "'vqzoo-e8'" in told
    assert "\n" not in told
