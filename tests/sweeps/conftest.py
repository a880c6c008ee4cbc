"""One small sweep, run by processes, for all tests of this folder."""

import pytest
from sweeping import GRID, Swept, sweep


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The sweep, run by two processes."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    return sweep(folder, "--executor", "local:2", "--threads", "1")
