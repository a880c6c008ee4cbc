"""The networks that come with vqzoo: small files, the stated accuracy, timm's conventions."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import timm
import torch
from safetensors import safe_open

import vqzoo
from tools.train_embedded import RECIPES
from vqzoo.models.embedded import default_data, is_embedded, weights_file
from vqzoo.models.registration import register_models

# Top-1 on the 10,000 test images of Fashion-MNIST, as README and docs state it; that of
# alexnet_mini.fmnist is in tests/runs/test_embedded.py.
TOP1 = {"mobilenet_mini.fmnist": 94.35, "vit_mini.fmnist": 91.70}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    register_models()
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("went to the network"))


def pretrained(name: str) -> torch.nn.Module:
    return timm.create_model(name, pretrained=True).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", TOP1)
def test_top1_on_all_test_images_is_the_stated_one(name: str) -> None:
    assert default_data(name) == "fmnist"
    model = pretrained(name).to(memory_format=torch.channels_last)  # a third of the time
    assert abs(vqzoo.evaluate(model).top1 - TOP1[name]) <= 0.02


@pytest.mark.parametrize("name", TOP1)
def test_a_few_test_images_agree_with_the_stated_top1(name: str) -> None:
    top1 = vqzoo.evaluate(pretrained(name), images=500).top1
    assert abs(top1 - TOP1[name]) <= 2.5


@pytest.mark.parametrize("name", TOP1)
def test_the_packaged_weights_are_small_and_say_how_they_were_trained(name: str) -> None:
    file = weights_file(name)
    assert is_embedded(name)
    assert file.stat().st_size <= 1_500_000
    state = pretrained(name).state_dict()
    with safe_open(file, "pt") as stored:
        assert set(stored.keys()) == state.keys()
        for key, tensor in state.items():
            assert torch.equal(stored.get_tensor(key).to(tensor.dtype), tensor)
        record = json.loads(stored.metadata()["vqzoo"])
    assert record["recipe"] == asdict(RECIPES[name.partition(".")[0]])
    assert "without the 5,000 held-out images" in record["data"]
    assert abs(record["held_out_top1"] - TOP1[name]) < 1


@pytest.mark.parametrize("name", TOP1)
def test_timms_keywords_are_supported(name: str) -> None:
    model = timm.create_model(name, pretrained=True, num_classes=7, in_chans=3)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    model.reset_classifier(0)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, model.num_features)
    maps = timm.create_model(name, features_only=True)
    assert [m.shape[1] for m in maps(torch.zeros(1, 1, 28, 28))] == maps.feature_info.channels()
    with torch.device("meta"):
        model = timm.create_model(name)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
