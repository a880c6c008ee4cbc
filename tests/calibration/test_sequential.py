"""H behind compressed layers is that of the inputs that the compressed layers make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.calibration.second_order.sequential import SequentialStatistics
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.view import compressible_layers
from vqzoo.data.calibration_data import collect_calibration_data
from vqzoo.errors import UsageError
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

IMAGES = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(1))
CPU = torch.device("cpu")


class Net(nn.Module):
    """Layers that are called in another order than that of their names, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)
        self.stem = nn.Conv2d(3, 6, 3)
        self.twice = nn.Conv2d(6, 6, 1)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.twice(self.twice(x).relu()).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))


def chain() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 5)).eval()


def statistics_of(
    model: nn.Module, memory: int, seen: Callable[[int, int], None] = lambda done, total: None
) -> SequentialStatistics:
    layers, _ = compressible_layers(model)
    dense = {}
    for layer in layers:
        m, n = layer.matrix_shape
        never = torch.full((layer.groups, n, n), torch.nan)
        dense[layer.name] = Statistics(second_order=SecondOrder((never,), torch.arange(m) + 1.0))
    data = collect_calibration_data(IMAGES)
    return SequentialStatistics(model, layers, dense, data, {}, CPU, seen, memory)


@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["in step", "a pass a layer"])
def test_the_second_layers_h_is_that_of_what_the_compressed_first_one_makes(memory: int) -> None:
    model = chain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    steps: list[tuple[int, int]] = []
    statistics = statistics_of(model, memory, lambda done, total: steps.append((done, total)))
    assert list(statistics.order) == ["0", "2", "4"]
    rough = torch.randn(8, 27, generator=torch.Generator().manual_seed(2))
    statistics["0"]
    statistics.put("0", rough)
    second = statistics["2"].second_order
    statistics.close()

    images, kernel = IMAGES.double().numpy(), rough.double().numpy().reshape(8, 3, 3, 3)
    bias = model[0].bias.detach().double().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (2, 3))
    hidden = np.einsum("bcyxij,ocij->boyx", windows, kernel) + bias[:, None, None]
    patches = np.lib.stride_tricks.sliding_window_view(hidden.clip(0), (3, 3), (2, 3))
    columns = patches.transpose(1, 4, 5, 0, 2, 3).reshape(72, -1)
    assert second is not None
    np.testing.assert_allclose(
        second.hessian[0][0].numpy(), columns @ columns.T / columns.shape[1], rtol=1e-4
    )
    assert second.row_weights.tolist() == [1, 2, 3, 4]  # those of the dense network
    assert (steps[-1:] == [(30, 30)]) == (memory == 0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_layer_that_is_called_twice_sees_both_calls_inputs() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    statistics = statistics_of(model, 1 << 30)
    assert list(statistics.order) == ["stem", "twice", "head", "idle"]
    rough = torch.randn(6, 27)
    statistics["stem"]
    statistics.put("stem", rough)
    second = statistics["twice"].second_order
    assert second is not None
    with torch.no_grad():
        model.stem.weight.copy_(rough.view(6, 3, 3, 3))
        first = model.stem(IMAGES).relu()
        both = torch.cat([first, model.twice(first).relu()]).movedim(1, 0).flatten(1)
    torch.testing.assert_close(second.hessian[0][0], both @ both.T / both.shape[1])
    with pytest.raises(KeyError):
        statistics["idle"]


@pytest.mark.parametrize("method", ["km", "pq", "ecq"])
def test_later_layers_change_and_the_first_does_not(method: str) -> None:
    model = chain()
    options: dict[str, Any] = {"price": 1e-6} if method == "ecq" else {"k": 4}
    settings: dict[str, Any] = {"layers": "all", "calibrate": [IMAGES], **options}
    plain = vqzoo.compress(model, method, **settings)
    behind = vqzoo.compress(model, method, sequential=True, **settings)
    again = vqzoo.compress(model, method, sequential=True, **settings)
    a, b, c = (small.module.state_dict() for small in (plain, behind, again))
    assert torch.equal(a["0.weight"], b["0.weight"])
    assert not torch.equal(a["2.weight"], b["2.weight"])
    assert all(torch.equal(b[key], c[key]) for key in b)
    assert [layer.layer.name for layer in behind.layers] == ["0", "2", "4"]


RUN = {
    "model": "mobilenet_mini.fmnist",
    "calibrate": "fmnist",
    "calibration_images": 64,
    "images": 50,
}


def test_a_run_resumes_behind_the_layers_that_it_has(tmp_path: Path) -> None:
    recipe = make_recipe(
        {**RUN, "method": "km", "options": {"k": 4}, "layers": ("conv",), "sequential": True}
    )

    class Stop(vqzoo.progress.SilentWatcher):
        def layer_started(self, name: str, index: int, total: int) -> None:
            if index == 3:
                raise KeyboardInterrupt

    whole = run(recipe, vqzoo.progress.SilentWatcher(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, Stop(), out=tmp_path / "parts")
    parts = run(recipe, vqzoo.progress.SilentWatcher(), out=tmp_path / "parts")
    weights = "vqzoo.safetensors"
    assert (whole.folder / weights).read_bytes() == (parts.folder / weights).read_bytes()
    assert whole.record.calibration is not None
    assert whole.record.calibration.sequential
    dense = run(
        recipe.model_copy(update={"sequential": False}),
        vqzoo.progress.SilentWatcher(),
        out=tmp_path / "dense",
    )
    assert (dense.folder / weights).read_bytes() != (whole.folder / weights).read_bytes()
    assert "sequential" not in dense.record.to_dict()["calibration"]


def test_a_size_is_kept_with_h_behind_compressed_layers(tmp_path: Path) -> None:
    recipe = make_recipe({**RUN, "layers": ("largest:6",), "size": "290kB", "sequential": True})
    finished = run(recipe, vqzoo.progress.SilentWatcher(), out=tmp_path / "small")
    size = (finished.folder / "vqzoo.safetensors").stat().st_size
    assert 0.98 * 290e3 < size <= 290e3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequential": True}, "give calibrate="),
        ({"sequential": True, "calibrate": [IMAGES], "method": "svd"}, "changes nothing for svd"),
    ],
)
def test_what_would_change_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vqzoo.compress(chain(), **{"method": "km", "layers": "all", **change})
