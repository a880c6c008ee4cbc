"""A Hub on loopback, and the client in this process made to use it."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from vqzoo.testing.hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, a cache of its own, and no waiting between the client's retries."""
    with HubServer() as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        yield server


def use_hub(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client, which read its environment long ago, to a Hub on loopback."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, file_download):  # clients before 1.0 keep a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
    monkeypatch.setenv("HF_TOKEN", server.token)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
