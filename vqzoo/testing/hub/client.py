"""The Hub's client in this process, made to use a Hub on loopback."""

from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub import constants, file_download

from vqzoo.testing.hub.server import HubServer

if TYPE_CHECKING:
    from pytest import MonkeyPatch  # noqa: PT013 - for the annotation alone


def use_hub(server: HubServer, home: Path, monkeypatch: "MonkeyPatch") -> None:
    """Point the client, which read its environment long ago, to a Hub on loopback.

    Args:
        server: it; its token is used.
        home: a cache of its own.
        monkeypatch: pytest's; it undoes all of this. Nothing waits between retries.
    """
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
