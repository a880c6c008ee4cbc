"""`vqzoo.compress` under one budget for the whole network."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from vqzoo import compress, load, load_into, save_weights
from vqzoo.errors import UsageError
from vqzoo.progress import SilentWatcher

RULES = {"layer[34]*": "binary", "fc": "binary"}  # the large layers have fixed sizes: it stays fast


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", pretrained=False).eval()


def bytes_of(folder: Path) -> int:
    return (folder / "vqzoo.safetensors").stat().st_size


class Own(nn.Module):
    """A network that timm cannot create."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(192, 96)
        self.second = nn.Linear(96, 10)
        for layer in (self.first, self.second):
            layer.weight.data.normal_(0, 0.1, generator=generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images.flatten(1)).relu())


def test_the_saved_file_keeps_the_size_and_is_the_command_line_s(
    vqzoo: Any, network: nn.Module, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    ran = vqzoo(
        "run", "test_resnet", "--checkpoint", "weights.pth", "--size", "95kB", "--out", "a",
        "--rule", "layer[34]*=binary", "--rule", "fc=binary", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    record = json.loads(ran.stdout)
    price = record["budget"]["price"]
    small = compress(network, {"*": "ecq", **RULES}, size="95kB")
    assert small.budget is not None
    assert small.budget.price == price
    assert small.budget.layers == record["budget"]["layers"]
    small.save(tmp_path / "b")
    assert 94_050 <= bytes_of(tmp_path / "b") <= 95_000
    assert abs(bytes_of(tmp_path / "b") - bytes_of(tmp_path / "a")) < 100  # what configs differ in
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(load(tmp_path / "a")(images), load(tmp_path / "b")(images))


def test_each_layer_of_any_network_gets_its_method(tmp_path: Path) -> None:
    network = Own()
    small = compress(network, "km,svd,ecq", size="9kB")
    assert small.budget is not None
    assert small.budget.methods == ("km", "svd", "ecq")
    save_weights(small, tmp_path / "a")
    assert 0.99 * 9000 <= bytes_of(tmp_path / "a") <= 9000
    other = load_into(Own(), tmp_path / "a")
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(other(images), small(images))
    alone = compress(network, "ecq", size="9kB")
    assert alone.budget is not None
    assert sum(small.budget.layers.values()) <= sum(alone.budget.layers.values())
    again = compress(network, "km,svd,ecq", lambda_=small.budget.price)
    assert [layer.method for layer in again.layers] == [layer.method for layer in small.layers]


def test_images_weight_errors_and_judge_networks() -> None:
    network = timm.create_model("alexnet_mini.fmnist", pretrained=True).eval()
    layers = ["features.0", "features.4"]
    small = compress(
        network, layers=layers, max_kl=0.05, calibrate="fmnist", calibration_images=64,
        held_out_images=100,
    )  # fmt: skip
    assert small.budget is not None
    assert small.budget.held_out is not None
    assert small.budget.held_out.kl is not None
    assert small.budget.held_out.kl <= 0.05
    assert {layer.method for layer in small.layers} == {"ecq"}
    assert small.budget.predicted_loss == pytest.approx(sum(small.budget.layers.values()))


class Listener(SilentWatcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, layer: str, text: str) -> None:
        self.notes.append(text)


def test_without_images_it_says_what_images_would_bring() -> None:
    listener = Listener()
    small = compress(Own(), lambda_=1e-3, progress=listener)
    assert len(small.layers) == 2  # all layers, under a budget
    (note,) = listener.notes
    assert "a few hundred unlabelled images would weight them" in note


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "give a method, or a budget"),
        ({"method": "ecq,km"}, "ecq,km: it takes a budget to choose between methods"),
        ({"size": "9kB", "lambda_": 1e-6}, "give one of size= and lambda_="),
        ({"size": "9 kilo"}, "size='9 kilo'"),
        ({"size": "9kB", "ratio": 8}, "size= and ratio= both choose"),
        ({"size": "9kB", "method": "ecq,km", "k": 4}, "leave them out beside ecq,km"),
        ({"size": "9kB", "method": "ecq,ecq"}, "ecq stands there twice"),
        ({"size": "9kB", "method": "km"}, "the size of no layer is left to choose (km)"),
        ({"size": "100", "method": "ecq"}, "size=100: the smallest possible file has"),
        ({"max_kl": 0.1}, "give calibrate= a data specification"),
        ({"max_kl": -1}, "max_kl=-1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError) as refused:
        compress(Own(), **arguments)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
