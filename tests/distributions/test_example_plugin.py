"""docs/example_plugin works as an installed wheel; where it is missing, the error names it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from environments import Environment, type_in_readme

import vqzoo
from vqzoo.errors import ArtifactError

SOURCE = Path(vqzoo.__file__).parents[1] / "docs" / "example_plugin"


@pytest.mark.slow
def test_from_a_wheel_to_an_artifact(
    environment: Environment, build: Callable[[Path], Path], tmp_path: Path
) -> None:
    environment.install(build(SOURCE))
    printed = type_in_readme(environment, SOURCE, tmp_path)
    assert len(printed) == 2
    assert "vqzoo-e8 0.1.0" in printed["vqzoo methods e8"]
    (artifact,) = tmp_path.glob("alexnet_mini.fmnist-e8-*")
    # One process loads it and runs the plugin's tests: to import torch and timm takes seconds.
    load = f"import vqzoo; assert type(vqzoo.load({artifact.name!r})).__name__ == 'AlexNet'"
    tests = ["-q", "-p", "no:cacheprovider", str(SOURCE / "tests")]
    program = f"import pytest; {load}; raise SystemExit(pytest.main({tests!r}))"
    tested = environment.run("python", "-c", program, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr

    with pytest.raises(ArtifactError) as caught:
        vqzoo.load(artifact)
    message = str(caught.value)
    assert "needs method 'e8', which no installed plugin provides" in message
    assert "'vqzoo-e8'" in message
    assert "\n" not in message
