"""Every parameter of a network is accounted for."""

import json
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.errors import CoverageWarning
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher

VECTORS = "biases, norms and other vectors"


class Zoo(nn.Module):
    """Kinds of layers that hold matrices, and parameters that are no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.map_norm = nn.LayerNorm([4, 6])
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)
        self.gru = nn.GRU(6, 4)
        self.cell = nn.RNNCell(5, 7)
        self.pair = nn.Bilinear(3, 4, 5)
        self.slope = nn.PReLU(12)
        self.position = nn.Parameter(torch.zeros(1, 9, 6))
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(40, 30)
        self.tied = nn.Linear(40, 30, bias=False)
        self.tied.weight = self.head.weight
        self.small = nn.Linear(3, 2, bias=False)
        self.spare = nn.Linear(50, 2, bias=False)
        self.spare.extra = nn.Parameter(torch.zeros(4, 4))


def test_every_parameter_is_compressed_or_has_a_reason() -> None:
    torch.manual_seed(0)
    model = Zoo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        methods = {"all": "rtn", "small": ("svd", {"rank": 2, "dtype": "float32"})}
        small = vqzoo.compress(model, methods, layers=["!spare"])
    names = {layer.layer.name for layer in small.layers}
    assert names == {"stem", "head"}
    assert small.skipped.keys() == {
        "map_norm", "lstm", "gru", "cell", "pair", "position", "tied", "small", "spare",
        "spare.extra",
    }  # fmt: skip
    assert small.skipped["lstm"] == "LSTM, a kind that vqzoo does not compress"
    assert small.skipped["position"] == "a parameter of Zoo that is no layer's weight"
    assert "would not make it smaller" in small.skipped["small"]
    assert small.skipped["spare"] == "excluded by !spare"

    coverage = small.coverage
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert (
        coverage.parameters
        == sum(sizes.values())
        == coverage.compressed + sum(coverage.dense.values())
    )
    assert coverage.compressed == 8 * 27 + 40 * 30
    assert coverage.share == coverage.compressed / coverage.parameters
    assert coverage.dense["LSTM, a kind that vqzoo does not compress"] == sum(
        size for name, size in sizes.items() if name.startswith("lstm.weight")
    )
    assert coverage.dense["excluded by !spare"] == 100
    vectors = sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.numel() == max(parameter.shape, default=1)
    )
    assert coverage.dense[VECTORS] == vectors


def test_a_network_that_is_hardly_compressed_says_so() -> None:
    model = nn.Sequential(nn.LSTM(100, 100), nn.Linear(100, 20))
    with pytest.warns(CoverageWarning) as caught:
        small = vqzoo.compress(model, "rtn")
    text = str(caught[0].message)
    assert text.startswith("only 2.4% of 82,820 weights are compressed; dense: 96.6% LSTM, a kind")
    assert text == str(small.coverage)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mini = find_model("alexnet_mini.fmnist", SilentWatcher()).module
        assert vqzoo.compress(mini, "rtn").coverage.share > 0.5


def test_a_share_that_is_small_is_not_printed_as_zero() -> None:
    model = nn.ModuleDict({"table": nn.Bilinear(300, 300, 30), "head": nn.Linear(20, 2)})
    with pytest.warns(CoverageWarning, match=r"only 0\.0015% of 2,700,072 weights"):
        vqzoo.compress(model, "rtn", layers="head")


def test_parameters_of_transformers_are_listed() -> None:
    model = timm.create_model("test_vit")
    small = vqzoo.compress(model, "rtn", layers="all")
    assert small.skipped == {
        "pos_embed": "a parameter of VisionTransformer that is no layer's weight"
    }
    assert small.coverage.share > 0.9


def run(*arguments: str, folder: Path) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["run", "test_resnet", "--weights", "random", "-m", "rtn",
                                    "--out", str(folder), *arguments])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return done.stdout, done.stderr


def test_a_run_tells_what_it_covers(tmp_path: Path) -> None:
    shown, remarks = run(folder=tmp_path / "a")
    record = json.loads((tmp_path / "a" / "report.json").read_text())
    coverage = record["coverage"]
    model = timm.create_model("test_resnet")
    fc = model.get_parameter("fc.weight").numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (coverage["compressed"], coverage["parameters"]) == (fc, total)
    assert fc + sum(group["parameters"] for group in coverage["dense"]) == total
    assert coverage["dense"][0]["reason"] == "conv2d, not selected by dense"
    assert f"only {100 * fc / total:.1f}% of {total:,} weights are compressed" in shown
    assert remarks.splitlines()[-1].startswith("warning: only ")
    shown, remarks = run("--layers", "all", folder=tmp_path / "b")
    assert "weights are compressed" in shown
    assert "only" not in shown
    assert "warning" not in remarks
