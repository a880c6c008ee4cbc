"""What all tests of this folder share: one small sweep, run by processes, and a page's script."""

from pathlib import Path

import pytest
from sweeping import GRID, Swept, sweep

from vqzoo.artifact.files import cache_folder
from vqzoo.page.library import chart_library


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The sweep, run by two processes."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    return sweep(folder, "--executor", "local:2", "--threads", "1")


@pytest.fixture(scope="session")
def chart_script() -> Path:
    """The script of all pages, which takes a second to make, for a test's own cache."""
    chart_library()
    (script,) = cache_folder().glob("vega-*.js")
    return script
