"""A Hub on loopback, and the client of this process pointed to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vqzoo.testing.hub.client import use_hub
from vqzoo.testing.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that the client uses with an empty cache and without delays between retries."""
    with HubServer() as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        yield server
