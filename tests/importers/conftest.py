"""Files that several tests of importers begin with."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports that onnxruntime's quantizers take."""
    from tests.importers.onnxruntime_files import write_plain

    return write_plain(tmp_path_factory.mktemp("plain"))
