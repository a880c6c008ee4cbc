"""Point the huggingface_hub client of this process to a Hub on loopback."""

from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub import constants, file_download

from vqzoo.testing.hub.server import HubServer

if TYPE_CHECKING:
    from pytest import MonkeyPatch  # noqa: PT013 - for the annotation alone


def use_hub(server: HubServer, home: Path, monkeypatch: "MonkeyPatch") -> None:
    """Point the client of this process to a Hub on loopback.

    The client read its environment when it was imported, so this patches its constants. It also
    removes the delay between retries.

    Args:
        server: the Hub; the client uses its token.
        home: the folder for the client's cache.
        monkeypatch: pytest's fixture, which undoes the patches.
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
