"""Check whether pretrained weights are cached or downloadable."""

import os
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants
from timm.models import PretrainedCfg

TIMEOUT_SECONDS = 5.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def is_cached(cfg: PretrainedCfg) -> bool:
    """Check whether the weights of a timm config are on this disk."""
    if cfg.file:
        return Path(cfg.file).is_file()
    if cfg.hf_hub_id:
        names = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else _HUB_FILES
        paths = (huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, name) for name in names)
        return any(isinstance(path, str) for path in paths)
    if isinstance(cfg.url, str):
        name = os.path.basename(urllib.parse.urlparse(cfg.url).path)
        return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()
    return False


def is_reachable(cfg: PretrainedCfg) -> bool:
    """Check whether the server that a timm config names responds within five seconds.

    HF_HUB_OFFLINE rules every download out, as in all tools of the Hub.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    if cfg.hf_hub_id:
        return responds(constants.ENDPOINT)
    return isinstance(cfg.url, str) and responds(cfg.url)


def responds(url: str, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Check whether a server responds at `url`, in whatever way, within `timeout` seconds.

    The time includes name resolution, which sockets do not bound; hence the thread.
    """
    reached: list[bool] = []

    def send_request() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                reached.append(True)
        except urllib.error.HTTPError:
            reached.append(True)
        except urllib.error.URLError as error:
            reached.append(isinstance(error.reason, ssl.SSLError))
        except OSError:
            reached.append(False)

    if not url.startswith(("http://", "https://")):
        return False
    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(reached and reached[0])
