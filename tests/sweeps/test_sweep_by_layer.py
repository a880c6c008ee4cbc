"""`vqzoo sweep --by-layer`: one cell after another, and the layers of each side by side."""

from pathlib import Path

import pytest
from sweeping import TWO_WORKERS, sweep

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

GRID = """
models: [test_resnet]
methods: [km, binary]
weights: random
layers: [largest:3]
include:
- {model: test_resnet, method: rtn, layers: [nowhere]}
- {model: vit_mini.fmnist, method: ecq, layers: [head], calibrate: fmnist, calibration_images: 16,
   images: 20, sequential: true, weights: pretrained}
"""


@pytest.mark.slow
def test_cells_are_those_of_runs_and_their_logs_say_how_they_went(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    swept = sweep(tmp_path, *TWO_WORKERS, "--by-layer")
    assert swept.exit_code == 1
    assert "4 cells: 3 done, 1 failed" in swept.stdout
    assert "'nowhere' matches no layer" in swept.stdout
    logs = [path.read_text() for path in (swept.out / "logs").iterdir()]
    assert sum("layers one after another: --sequential" in log for log in logs) == 1
    made = {(path / WEIGHTS_FILE).read_bytes() for path in (swept.out / "cells").iterdir()}
    for method in ("km", "binary"):
        fields = {"model": "test_resnet", "weights": "random", "layers": ("largest:3",)}
        recipe = make_recipe({**fields, "method": method})
        alone = run(recipe, SilentWatcher(), out=tmp_path / method)
        made.remove((alone.folder / WEIGHTS_FILE).read_bytes())
    assert len(made) == 1
    again = sweep(tmp_path, *TWO_WORKERS, "--by-layer")
    assert "3 done, 1 failed" in again.stdout
