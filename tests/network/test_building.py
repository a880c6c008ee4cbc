"""Networks whose constructors read their own weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models._registry import _model_entrypoints
from torch import Tensor, nn

import vqzoo
from vqzoo.errors import ArtifactError

NAMES = ("reads_a_weight", "keeps_a_mask", "keeps_a_table")
default_cfgs = {name: {"input_size": (3, 8, 8)} for name in NAMES}


class ReadsAWeight(nn.Module):
    """Uses the value of a weight: on the meta device it has none."""

    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = self.num_features = num_classes
        self.conv = nn.Conv2d(in_chans, 16, 3)
        self.fc = nn.Linear(16, num_classes)
        if self.conv.weight.abs().max().item() == 0:
            raise ValueError("the weights are not initialized")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class KeepsAMask(nn.Module):
    """Computes a buffer outside the state dict from a weight: the buffer would be on its device."""

    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = self.num_features = num_classes
        self.fc = nn.Linear(in_chans, num_classes)
        self.register_buffer("mask", self.fc.weight.detach().new_ones(in_chans), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)) * self.mask)


class KeepsATable(nn.Module):
    """Fills a large tensor that it does not register."""

    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = self.num_features = num_classes
        self.position = nn.Parameter(torch.empty(1, in_chans, 200, 200))
        self.fc = nn.Linear(in_chans, num_classes)
        self.table = torch.empty(in_chans, 40_000)
        self.table.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position[..., : x.shape[2], : x.shape[3]]
        return self.fc(x.mean((2, 3)) * self.table.mean(1))


def reads_a_weight(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(ReadsAWeight, "reads_a_weight", pretrained, **kwargs)


def keeps_a_mask(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(KeepsAMask, "keeps_a_mask", pretrained, **kwargs)


def keeps_a_table(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(KeepsATable, "keeps_a_table", pretrained, **kwargs)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for create in (reads_a_weight, keeps_a_mask, keeps_a_table):
        register_model(create)
    yield
    for create in (reads_a_weight, keeps_a_mask, keeps_a_table):
        del _model_entrypoints[create.__name__]


@pytest.mark.parametrize("mode", ["decoded", "codes"])
@pytest.mark.parametrize("name", NAMES)
def test_they_load(name: str, mode: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = vqzoo.compress(timm.create_model(name), "km", layers="all", k=4)
    small.save(tmp_path / "a")
    before = torch.get_rng_state()
    network = vqzoo.load(tmp_path / "a", mode=mode)
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(2, 3, 8, 8)
    if mode == "decoded":
        assert torch.equal(network(x), small(x))
    else:  # sums in another order
        torch.testing.assert_close(network(x), small(x), rtol=1e-5, atol=1e-6)


def test_a_constructor_that_fails_everywhere_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqzoo.compress(timm.create_model("reads_a_weight"), "km", layers="all", k=4).save(
        tmp_path / "a"
    )
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda self: nn.init.zeros_(self.weight))
    with pytest.raises(ArtifactError, match="the weights are not initialized"):
        vqzoo.load(tmp_path / "a")
