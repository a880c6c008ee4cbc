"""Weights come from the cache, the network or an embedded relative."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from timm.models import PretrainedCfg

from vqzoo.errors import UsageError, VqzooError
from vqzoo.models.availability import is_cached, responds
from vqzoo.models.dense import find_model, resolve_name
from vqzoo.models.registration import register_models
from vqzoo.progress import SilentWatcher

register_models()


@pytest.fixture
def server() -> Iterator[str]:
    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def test_any_response_counts_and_silence_does_not(server: str) -> None:
    assert responds(server)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        assert not responds(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        assert time.monotonic() - started < 5
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert not responds(f"http://127.0.0.1:{port}", timeout=2)
    assert not responds("file:///etc/hosts")


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cfg = PretrainedCfg(url="https://example.invalid/some/alexnet-1234.pth")
    assert not is_cached(cfg)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "alexnet-1234.pth").write_bytes(b"x")
    assert is_cached(cfg)


def test_a_bare_name_falls_back_on_its_relative_and_says_so(offline: None) -> None:
    said: list[str] = []
    assert resolve_name("alexnet", said.append) == "alexnet_mini.fmnist"
    assert len(said) == 1
    assert "alexnet.tv_in1k" in said[0]
    assert "alexnet_mini.fmnist" in said[0]


def test_a_tagged_name_never_falls_back(offline: None) -> None:
    with pytest.raises(VqzooError, match="--checkpoint"):
        resolve_name("alexnet.tv_in1k", pytest.fail)


def test_a_name_without_a_relative_is_an_error(offline: None) -> None:
    with pytest.raises(VqzooError, match="--weights random"):
        resolve_name("resnet18", pytest.fail)


def test_errors_about_unknown_names_give_near_matches() -> None:
    with pytest.raises(UsageError, match="did you mean resnet18"):
        resolve_name("resnet81", pytest.fail)
    with pytest.raises(UsageError, match=r"resnet18\.tv_in1k"):
        resolve_name("resnet18.nope", pytest.fail)


def test_random_weights_come_from_the_seed_and_do_not_change_torchs_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (
        find_model("test_resnet", SilentWatcher(), weights="random", seed=seed).module
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    assert not first.training


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "nested.pth"])
def test_a_checkpoint_is_loaded_unchanged(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = timm.create_model("test_resnet")
    path = tmp_path / name
    state = model.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if name.startswith("nested") else state, path)
    opened = find_model("test_resnet", SilentWatcher(), checkpoint=path)
    assert opened.weights == f"checkpoint:{name}"
    assert all(torch.equal(v, opened.module.state_dict()[k]) for k, v in state.items())


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    torch.save({"fc.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(VqzooError, match=r"bomb\.pth holds a .* vqzoo does not unpickle"):
        find_model("test_resnet", SilentWatcher(), checkpoint=tmp_path / "bomb.pth")
    assert not (tmp_path / "owned").exists()
