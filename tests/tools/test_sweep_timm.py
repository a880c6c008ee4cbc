"""The sweep over timm's families: a few quick ones, all of them on demand, and how it fails."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models._registry import _model_entrypoints
from torch import Tensor, nn

from tools import sweep_timm
from tools.sweep_timm import MOST_PARAMETERS, Family, choose, families, main, sweep

# Convolutions that standardize their weight (nfnet), blocks that read attributes (davit) and
# weights (eva, edgenext) of their layers.
QUICK = ("byobnet", "nfnet", "maxxvit", "davit", "eva", "edgenext")
# All of them take a quarter of an hour.
SWEPT = families(MOST_PARAMETERS * 1e6) if "VQZOO_SWEEP" in os.environ else []

default_cfgs = {name: {"input_size": (3, 8, 8)} for name in ("is_constant", "is_another_each_time")}


class Constant(nn.Module):
    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = self.num_features = num_classes
        self.fc = nn.Linear(in_chans * 64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.fc(x.flatten(1))


class AnotherEachTime(Constant):
    """A network with something that its state dict does not have."""

    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__(num_classes, in_chans)
        self.factors = torch.randn(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.factors


def is_constant(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(Constant, "is_constant", pretrained, **kwargs)


def is_another_each_time(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(AnotherEachTime, "is_another_each_time", pretrained, **kwargs)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two families that fail, before one that passes."""
    models = {"a": "is_constant", "b": "is_another_each_time", "c": "test_resnet", "d": "no_such"}
    listed = {name: {"model": model, "parameters": 1000} for name, model in models.items()}
    (tmp_path / "families.json").write_text(json.dumps(listed))
    monkeypatch.setattr(sweep_timm, "FAMILIES", tmp_path / "families.json")
    for create in (is_constant, is_another_each_time):
        register_model(create)
    yield
    for create in (is_constant, is_another_each_time):
        del _model_entrypoints[create.__name__]


def test_quick_families_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word for name in QUICK for word in ("--family", name)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(QUICK) + 2
    for name, line in zip(QUICK, lines[2:], strict=True):
        cells = line.strip("| ").split(" | ")
        assert cells[0] == name
        assert (cells[5], cells[7]) == ("equal", "yes")
        # Products from codes may add up in another order.
        assert cells[6] == "equal" or float(cells[6]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("family", SWEPT, ids=lambda family: family.name)
def test_every_small_family_passes(family: Family) -> None:
    outcome = sweep(family.model)
    assert outcome.problem is None
    assert outcome.layers


def test_failures_are_in_the_table_and_the_sweep_goes_on(
    broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    output = capsys.readouterr()
    _, _, first, second, third = output.out.splitlines()
    assert first.endswith("| failed: ValueError: its logits are not finite, or all the same |")
    assert second.startswith("| b | is_another_each_time |")
    assert "another network" in second
    assert third.endswith("| yes |")
    assert "1 of 3 networks passed" in output.err


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--family", "resnets"]) == 2
    assert "no family 'resnets'; the families are: beit," in capsys.readouterr().err


def test_the_smallest_network_of_a_family_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_timm, "list_modules", lambda: ["visformer", "convmixer"])
    chosen = list(choose())
    for family in chosen:
        sizes = [
            sum(parameter.numel() for parameter in timm.create_model(name).parameters())
            for name in timm.list_models(module=family.name)
        ]
        assert family.parameters == min(sizes)
    listed = {family.name: family for family in families()}
    assert chosen == [listed["visformer"], listed["convmixer"]]
