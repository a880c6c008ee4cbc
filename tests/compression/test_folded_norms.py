"""Batch norms folded into layers: where the graph allows it, exactly, and to the end of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.compression.norms.folding import fold_norms, merge_norms
from vqzoo.errors import UsageError

load = vqzoo.load  # tests have a fixture of the package's name
Vqzoo = Callable[..., Any]


def trained(model: nn.Module) -> nn.Module:
    """A network whose norms have the statistics, scales and shifts of trained ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                if module.affine:
                    module.weight.normal_(0.8, 0.5)  # some are negative
                    module.weight[0] = 0.0
                    module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 3.0)
    return model.eval().requires_grad_(False)


def same_answers(one: nn.Module, other: nn.Module, images: Tensor) -> bool:
    expected = one.double()(images.double())
    answers = other.double()(images.double())
    one.float(), other.float()
    return float((answers - expected).abs().max()) < 1e-5 * float(expected.abs().max())


class Net(nn.Module):
    """Norms in every place that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.plain = nn.Conv2d(3, 8, 3, bias=False)
        self.plain_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.depthwise_norm = nn.BatchNorm2d(8, eps=1e-3)
        self.seen = nn.Conv2d(8, 8, 1)
        self.seen_norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 1)
        self.twice_norm = nn.BatchNorm2d(8)
        self.other_norm = nn.BatchNorm2d(8)
        self.grown = nn.Conv2d(8, 8, 1)
        self.grown_norm = nn.BatchNorm2d(8)
        self.viewed = nn.Conv2d(8, 8, 1)
        self.viewed_norm = nn.BatchNorm2d(8)
        self.bare = nn.Conv2d(8, 8, 1)
        self.bare_norm = nn.BatchNorm2d(8, affine=False)
        self.group_norm = nn.GroupNorm(2, 8)
        self.linear = nn.Linear(8, 6)
        self.linear_norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 4, bias=False)
        self.last_norm = nn.BatchNorm1d(4)
        self.idle = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain_norm(self.plain(self.before(x)))
        x = self.depthwise_norm(self.depthwise(x.relu()))
        y = self.seen(x)
        x = self.seen_norm(y) + y.mean()
        x = self.twice_norm(self.twice(x)) + self.other_norm(self.twice(x * 2))
        x = self.grown_norm(2 * self.grown(x))
        x = self.viewed_norm(self.viewed(x)[:, [1, 0, 2, 3, 4, 5, 6, 7]])
        x = self.group_norm(self.bare_norm(self.bare(x)))
        x = self.linear_norm(self.linear(x.mean((2, 3))))
        return self.last_norm(self.last(x.relu()))


def test_only_norms_that_follow_a_layer_directly_and_alone_are_folded() -> None:
    network = trained(Net())
    folded = fold_norms(network)
    assert folded.layers == {
        "plain_norm": "plain",
        "depthwise_norm": "depthwise",
        "linear_norm": "linear",
        "last_norm": "last",
    }
    assert folded.kept == {
        "before": "does not directly follow a layer",
        "seen_norm": "other operations see the outputs of its layer, too",
        "twice_norm": "its parameters, or those of its layer, are used more than once",
        "other_norm": "its parameters, or those of its layer, are used more than once",
        "grown_norm": "does not directly follow a layer",
        "viewed_norm": "does not directly follow a layer",
        "bare_norm": "not a batch norm with statistics, a scale and a shift",
        "group_norm": "not a batch norm with statistics, a scale and a shift",
        "idle": "was not reached",
    }
    images = torch.randn(4, 3, 12, 12)
    assert same_answers(network, folded.module, images)
    assert same_answers(network, merge_norms(folded.module), images)


def test_what_is_left_of_a_norm_is_a_shift() -> None:
    network = trained(Net())
    merged: Any = merge_norms(fold_norms(network).module)
    for name in ("plain_norm", "depthwise_norm", "linear_norm", "last_norm"):
        norm = merged.get_submodule(name)
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
        for tensor in (norm.running_var, norm.weight):
            assert torch.equal(tensor, tensor[:1].expand_as(tensor))
            assert torch.equal(tensor, tensor.half().float())  # exact in float16
    for name in ("before", "seen_norm", "twice_norm"):  # merged into two vectors
        norm = merged.get_submodule(name)
        assert torch.equal(norm.running_var, norm.running_var[:1].expand_as(norm.running_var))
        assert not torch.equal(norm.weight, norm.weight[:1].expand_as(norm.weight))
    assert torch.equal(merged.depthwise.bias, torch.zeros(8))
    assert torch.equal(merged.bare_norm.running_mean, network.get_buffer("bare_norm.running_mean"))


def test_the_given_network_does_not_change() -> None:
    network = trained(Net())
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    merge_norms(fold_norms(network).module)
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


def test_statistics_stay_those_of_the_outputs() -> None:
    """What repair estimates again must mean the same before and behind folding."""
    network: Any = trained(Net())
    with torch.no_grad():
        network.plain_norm.weight.uniform_(0.5, 2.0)
    folded: Any = fold_norms(network).module
    images = torch.randn(64, 3, 12, 12)
    answers = []
    for one in (network, folded):
        outputs = one.plain(one.before(images))
        norm = nn.BatchNorm2d(8, momentum=None)
        norm.train()(outputs)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        one.plain_norm.running_mean.copy_(norm.running_mean)
        one.plain_norm.running_var.copy_(norm.running_var)
        answers.append(one.plain_norm(outputs))
    assert torch.allclose(answers[0], answers[1], atol=5e-3)


class Scaled(nn.Conv2d):
    """A convolution that does more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Standardized(nn.Conv2d):
    """A convolution whose weight is computed."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize("kind", [Scaled, Standardized])
def test_layers_that_compute_something_else_are_not_folded(kind: type[nn.Conv2d]) -> None:
    network = trained(nn.Sequential(kind(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold_norms(network)
    assert folded.layers == {}
    assert "1" in folded.kept


def test_shared_weights_are_not_folded() -> None:
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    network = trained(nn.Sequential(first, nn.BatchNorm2d(3), second, nn.BatchNorm2d(3)))
    folded = fold_norms(network)
    assert folded.layers == {}
    assert set(folded.kept.values()) == {
        "its parameters, or those of its layer, are used more than once"
    }
    assert same_answers(network, merge_norms(folded.module), torch.randn(2, 3, 8, 8))


def test_norms_that_share_tensors_are_not_merged() -> None:
    network = trained(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)))
    network[2].weight = network[1].weight
    assert same_answers(network, merge_norms(network), torch.randn(2, 3, 8, 8))


def test_networks_without_batch_norms_are_refused() -> None:
    model = timm.create_model("test_vit", num_classes=10)
    with pytest.raises(UsageError, match="LayerNorm"):
        vqzoo.compress(model, "rtn", fold_norms=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnetv2_50", "densenet121"])
def test_timms_networks(name: str) -> None:
    if name not in timm.list_models(name):
        pytest.skip("timm has no such model")
    arguments = {"layers": [1, 1, 1, 1]} if name == "resnetv2_50" else {}
    if name == "densenet121":
        arguments = {"block_config": [1, 1, 1, 1]}
    network = trained(timm.create_model(name, num_classes=10, **arguments))
    folded = fold_norms(network)
    assert folded.layers
    assert folded.difference < 1e-5
    if name in ("resnetv2_50", "densenet121"):  # pre-activation: some norms follow sums
        assert "does not directly follow a layer" in folded.kept.values()
    else:
        assert folded.kept == {}


def test_artifacts_hold_shifts_alone(tmp_path: Path) -> None:
    model = trained(timm.create_model("test_efficientnet", num_classes=10))
    plain = vqzoo.compress(model, "rtn", layers="all")
    folded = vqzoo.compress(model, "rtn", layers="all", fold_norms=True)
    plain.save(tmp_path / "plain", layout="compact", rest="float16")
    folded.save(tmp_path / "folded", layout="compact", rest="float16")
    sizes = [
        sum(t.nbytes for t in open_artifact(tmp_path / name).dense_tensors().values())
        for name in ("plain", "folded")
    ]
    channels = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert sizes[0] - sizes[1] == 3 * 2 * channels
    artifact = open_artifact(tmp_path / "folded")
    assert artifact.metadata.norms == folded.norms
    assert len(folded.norms) > 5
    images = torch.randn(2, *model.pretrained_cfg["input_size"])  # type: ignore[index,misc]
    expected = folded(images)
    for mode in ("decoded", "codes"):
        answers = load(tmp_path / "folded", mode=mode)(images)
        assert float((answers - expected).abs().max()) < 2e-3 * float(expected.abs().max())


def test_a_run_and_everything_after_it(vqzoo: Vqzoo, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(timm.create_model("test_resnet"))
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    words = ["run", "test_resnet", "--checkpoint", "mine.pth", "--lambda", "1e-4"]
    assert vqzoo(*words, "--out", "plain").exit_code == 0
    result = vqzoo(*words, "--fold-norms", "--out", "folded")
    assert result.exit_code == 0
    assert "batch norms" in result.stdout
    record = json.loads((tmp_path / "folded" / "report.json").read_text())
    assert "--fold-norms" in record["command"]
    assert record["norms"]["folded"]["conv1.1"] == "conv1.0"
    assert record["norms"]["kept"] == {}
    assert 0 <= record["norms"]["difference"] < 1e-5
    assert "norms" not in json.loads((tmp_path / "plain" / "report.json").read_text())
    plain, folded = (open_artifact(tmp_path / name) for name in ("plain", "folded"))
    dense = [sum(t.nbytes for t in a.dense_tensors().values()) for a in (plain, folded)]
    assert dense[1] < dense[0] / 2
    assert record["budget"]["steps"][-1]["bytes"] == folded.header.file_bytes
    inspected = vqzoo("inspect", "folded")
    assert "batch norms are folded" in " ".join(inspected.stdout.split())
    exported = vqzoo("export", "folded", "--to", "dense", "--out", "dense")
    assert exported.exit_code == 0
    again = timm.create_model(f"local-dir:{tmp_path / 'dense'}", pretrained=True).eval()
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(again(images), load(tmp_path / "folded")(images))
