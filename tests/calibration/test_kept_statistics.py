"""Second-order statistics are gathered once for the same network, images, layers and seed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import vqzoo
from vqzoo.artifact.files import cache_folder
from vqzoo.calibration.second_order import kept
from vqzoo.calibration.second_order.kept import kept_second_order
from vqzoo.compression.view import compressible_layers
from vqzoo.data.batches import Data
from vqzoo.data.calibration_data import collect_calibration_data
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.progress import SilentWatcher, Steps


class Passes(SilentWatcher):
    """Counts passes over images, and keeps what is said."""

    def __init__(self) -> None:
        self.count = 0
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def images(self, text: str) -> Iterator[Steps]:
        self.count += 1
        yield lambda done, total: None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "second-order"


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def images(seed: int = 0, count: int = 20) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return collect_calibration_data(torch.randn(count, 3, 8, 8, generator=generator))


def gather(
    model: nn.Module, data: Data, watcher: Passes, seed: int = 0, layers: int = 2
) -> dict[str, SecondOrder]:
    some = compressible_layers(model)[0][:layers]
    return kept_second_order(
        model, some, data, seed=seed, device=torch.device("cpu"), watcher=watcher
    )


def test_the_same_request_reads_what_is_kept(model: nn.Module, cache: Path) -> None:
    watcher = Passes()
    first, again = gather(model, images(), watcher), gather(model, images(), watcher)
    assert watcher.count == 1
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]
    for name, layer in first.items():
        assert torch.equal(layer.row_weights, again[name].row_weights)
        assert all(map(torch.equal, layer.hessian, again[name].hessian))


def test_another_request_gathers_anew(model: nn.Module) -> None:
    watcher = Passes()
    gather(model, images(), watcher)
    gather(model, images(seed=1), watcher)
    gather(model, images(count=19), watcher)
    gather(model, images(), watcher, seed=1)
    gather(model, images(), watcher, layers=1)
    with torch.no_grad():
        model[3].weight[0, 0] += 1
    gather(model, images(), watcher)
    assert watcher.count == 6


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100])
def test_a_damaged_file_is_written_again(model: nn.Module, cache: Path, damage: bytes) -> None:
    watcher = Passes()
    first = gather(model, images(), watcher)
    (file,) = cache.iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage)
    again = gather(model, images(), watcher)
    assert watcher.count == 2
    assert torch.equal(first["3"].row_weights, again["3"].row_weights)
    assert file.read_bytes() == intact


def test_the_longest_unused_files_go(
    model: nn.Module, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Passes()
    gather(model, images(), watcher)
    (first,) = cache.iterdir()
    monkeypatch.setattr(kept, "KEPT_BYTES", int(2.5 * first.stat().st_size))
    gather(model, images(seed=1), watcher)
    (second,) = set(cache.iterdir()) - {first}
    gather(model, images(), watcher)  # used again
    gather(model, images(seed=2), watcher)
    assert watcher.count == 3
    assert first.exists()
    assert not second.exists()
    assert len(list(cache.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_named_and_the_run_goes_on(
    model: nn.Module, cache: Path
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    watcher = Passes()
    assert gather(model, images(), watcher).keys() == {"0", "3"}
    assert "cannot be kept" in watcher.said[0]
    assert str(cache) in watcher.said[0]


def test_compress_uses_what_is_kept(model: nn.Module) -> None:
    batch = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    shutil.rmtree(cache_folder(), ignore_errors=True)
    watchers = [Passes(), Passes(), Passes()]
    results = [
        vqzoo.compress(model, method, layers="all", calibrate=batch, progress=watcher, k=4)
        for method, watcher in zip(("km", "km", "pq"), watchers, strict=True)
    ]
    assert [watcher.count for watcher in watchers] == [1, 0, 0]
    for key, tensor in results[0].module.state_dict().items():
        assert torch.equal(tensor, results[1].module.state_dict()[key])
