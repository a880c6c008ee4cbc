"""Which weights can be compressed, how they are seen as matrices, and which are chosen."""

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations

from vqzoo.compression.selection import LayerPlan, MethodChoice, plan_layers
from vqzoo.compression.view import compressible_layers, weight_key, weight_matrix
from vqzoo.errors import UsageError
from vqzoo.plugin import LayerInfo
from vqzoo.plugin.manager import Plugins, installed_plugins, load_plugins


class Mixed(nn.Module):
    """Every kind of layer that has weights, and some that are passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, (3, 5), groups=4),
            nn.Conv2d(16, 16, 3, groups=16),
        )
        self.signal = nn.Conv1d(6, 9, 7, groups=3)
        self.volume = nn.Conv3d(2, 2, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.table = nn.Embedding(5, 6)
        self.normed = parametrizations.weight_norm(nn.Linear(6, 7))
        self.spectral = parametrizations.spectral_norm(nn.Conv2d(3, 3, 3))
        self.head = nn.Linear(20, 10)
        self.tied = nn.Linear(20, 10)
        self.tied.weight = self.head.weight
        self.lookup = nn.Linear(6, 5, bias=False)
        self.lookup.weight = self.table.weight
        self.integers = nn.Linear(2, 2)
        self.integers.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)


@pytest.fixture(scope="module")
def model() -> Mixed:
    torch.manual_seed(0)
    return Mixed()


@pytest.fixture(scope="module")
def layers(model: Mixed) -> list[LayerInfo]:
    return compressible_layers(model)[0]


def test_linear_and_convolutions_are_found_in_the_order_of_the_model(model: Mixed) -> None:
    layers, _ = compressible_layers(model)
    assert [(layer.name, layer.kind, layer.groups, layer.matrix_shape) for layer in layers] == [
        ("features.0", "conv2d", 1, (8, 36)),
        ("features.2", "conv2d", 4, (16, 30)),
        ("features.3", "conv2d", 16, (16, 9)),
        ("signal", "conv1d", 3, (9, 14)),
        ("volume", "conv3d", 1, (2, 54)),
        ("up", "conv_transpose2d", 1, (4, 16)),
        ("head", "linear", 1, (10, 20)),
        ("lookup", "linear", 1, (5, 6)),
    ]
    assert [layer.numel for layer in layers] == [288, 480, 144, 126, 108, 64, 200, 30]


def test_what_is_passed_over_has_a_reason(model: Mixed) -> None:
    _, passed = compressible_layers(model)
    assert passed == {
        "normed": "its weight is computed from other parameters",
        "spectral": "its weight is computed from other parameters",
        "tied": "shares the weight of head",
        "integers": "its weight is int8",
        "table": "shares the weight of lookup",
    }


def test_a_row_is_an_output_channel_and_holds_its_filter(
    model: Mixed, layers: list[LayerInfo]
) -> None:
    for layer in layers:
        weight = model.get_parameter(weight_key(layer.name)).detach()
        matrix = weight_matrix(weight, layer, torch.device("cpu"))
        assert matrix.shape == layer.matrix_shape
        assert matrix.is_contiguous()
        for channel in range(weight.shape[0]):
            assert torch.equal(matrix[channel], weight[channel].flatten())
        assert torch.equal(matrix.view(weight.shape), weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_matrix_is_float32_whatever_the_weight(dtype: torch.dtype) -> None:
    conv = nn.Conv2d(4, 6, 3).to(dtype).to(memory_format=torch.channels_last)
    (layer,), _ = compressible_layers(conv)
    matrix = weight_matrix(conv.weight, layer, torch.device("cpu"))
    assert matrix.dtype == torch.float32
    assert torch.equal(matrix, conv.weight.detach().float().reshape(6, 36))


def test_a_model_that_is_itself_a_layer() -> None:
    layers, _ = compressible_layers(nn.Linear(3, 4))
    assert layers == [LayerInfo("", "linear", (4, 3))]
    assert weight_key("") == "weight"


def test_models_of_timm_have_all_their_linear_and_conv_weights_listed() -> None:
    for name in ("test_vit", "test_convnext", "test_efficientnet"):
        model = timm.create_model(name)
        layers, passed = compressible_layers(model)
        expected = [
            name
            for name, module in model.named_modules()
            if type(module).__name__ in {"Linear", "Conv2d"} and name not in passed
        ]
        assert set(expected) <= {layer.name for layer in layers}
        for layer in layers:
            assert model.get_parameter(weight_key(layer.name)).shape == layer.shape


PQ = MethodChoice("pq")
KM = MethodChoice("km")
SVD = MethodChoice("svd")


def chosen(
    layers: Sequence[LayerInfo],
    selection: Sequence[str],
    rules: Sequence[tuple[str, MethodChoice]] = (),
    choice: MethodChoice | None = PQ,
) -> tuple[dict[str, str], dict[str, str]]:
    """Layer -> method, and layer -> why not."""
    plans, skipped = plan_layers(layers, selection, choice, rules, installed_plugins())
    assert all(isinstance(plan, LayerPlan) for plan in plans)
    found = {plan.layer.name: plan.choice.method for plan in plans}
    names = [layer.name for layer in layers]
    assert list(found) == [name for name in names if name in found]
    assert found.keys() | skipped.keys() == set(names)
    assert not found.keys() & skipped.keys()
    return found, skipped


CONVOLUTIONS = ["features.0", "features.2", "features.3", "signal", "volume", "up"]
SELECTIONS = [
    (["dense"], ["head", "lookup"]),
    (["conv"], CONVOLUTIONS),
    (
        ["all"],
        ["features.0", "features.2", "features.3", "signal", "volume", "up", "head", "lookup"],
    ),
    (["largest:1"], ["features.2"]),
    (["largest:3"], ["features.0", "features.2", "head"]),
    (
        ["largest:99"],
        ["features.0", "features.2", "features.3", "signal", "volume", "up", "head", "lookup"],
    ),
    (["head"], ["head"]),
    (["features.*"], ["features.0", "features.2", "features.3"]),
    (["pattern:*.[23]"], ["features.2", "features.3"]),
    (["head", "signal"], ["signal", "head"]),
    (["all", "!conv"], ["head", "lookup"]),
    (["!dense"], CONVOLUTIONS),
    (["!features.*", "!head"], ["signal", "volume", "up", "lookup"]),
    (
        ["conv", "!features.0", "head"],
        ["features.2", "features.3", "signal", "volume", "up", "head"],
    ),
]


@pytest.mark.parametrize(("selection", "expected"), SELECTIONS, ids=lambda v: ",".join(v))
def test_selectors(layers: list[LayerInfo], selection: list[str], expected: list[str]) -> None:
    assert list(chosen(layers, selection)[0]) == expected


def test_what_is_left_out_says_why(layers: list[LayerInfo]) -> None:
    _, skipped = chosen(layers, ["dense", "!lookup"])
    assert skipped["lookup"] == "excluded by !lookup"
    assert skipped["features.0"] == "conv2d, not selected by dense"
    _, skipped = chosen(layers, [], [("head", KM)], choice=None)
    assert skipped["signal"] == "conv1d, not selected by any rule"


def test_the_last_rule_that_matches_wins(layers: list[LayerInfo]) -> None:
    rules = [("all", KM), ("features.*", SVD), ("features.2", KM), ("head", PQ)]
    found, skipped = chosen(layers, [], rules, choice=None)
    assert found == {
        "features.0": "svd",
        "features.2": "km",
        "features.3": "svd",
        "signal": "km",
        "volume": "km",
        "up": "km",
        "head": "pq",
        "lookup": "km",
    }
    assert not skipped


def test_rules_reach_beyond_the_selection_and_exclusions_win(layers: list[LayerInfo]) -> None:
    found, skipped = chosen(layers, ["dense", "!features.3"], [("features.*", KM), ("head", SVD)])
    assert found == {"features.0": "km", "features.2": "km", "head": "svd", "lookup": "pq"}
    assert skipped["features.3"] == "excluded by !features.3"


@pytest.mark.parametrize(
    ("selection", "hint"),
    [
        (["haed"], "did you mean head?"),
        (["feature.2"], "did you mean features.2"),
        (["densse"], "did you mean dense?"),
        (["xyzzy.*"], "Layers: features.0, "),
        (["dense", "!haed"], "did you mean head?"),
    ],
)
def test_a_pattern_that_matches_nothing(
    layers: list[LayerInfo], selection: list[str], hint: str
) -> None:
    with pytest.raises(UsageError, match="matches no layer") as caught:
        chosen(layers, selection)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rule_that_matches_nothing(layers: list[LayerInfo]) -> None:
    with pytest.raises(UsageError, match="'clasifier' matches no layer"):
        chosen(layers, ["dense"], [("clasifier", KM)])


@pytest.mark.parametrize(
    "text", ["largest", "largest:", "largest:0", "largest:-1", "largest:two", "dense:3", "all:x"]
)
def test_selectors_with_wrong_arguments(layers: list[LayerInfo], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        chosen(layers, [text])


def test_everything_excluded(layers: list[LayerInfo]) -> None:
    with pytest.raises(UsageError, match="nothing is left"):
        chosen(layers, ["dense", "!all"])


def test_a_kind_that_the_model_does_not_have() -> None:
    layers = [LayerInfo("fc", "linear", (4, 4))]
    with pytest.raises(UsageError, match="'conv' matches no layer"):
        chosen(layers, ["conv"])


SELECTOR = """
from vqzoo.plugin import LayerSelector, hookimpl

class First(LayerSelector):
    name = "{name}"
    def select(self, layers, text):
        return {{layers[{index}].name: "a test's choice"}}

@hookimpl
def vqzoo_layer_selectors():
    return [First()]
"""


def with_selectors(tmp_path: Path, **selectors: tuple[str, int]) -> Plugins:
    """The installed plugins, and distributions with one selector each."""
    for distribution, (name, index) in selectors.items():
        info = tmp_path / f"{distribution}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[vqzoo]\nx = plugin_{distribution}\n")
        source = SELECTOR.format(name=name, index=index)
        (tmp_path / f"plugin_{distribution}.py").write_text(source)
    return load_plugins(entry_points(group="vqzoo"))


def test_a_selector_claimed_twice_is_told_apart_by_its_distribution(
    layers: list[LayerInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = with_selectors(tmp_path, acme=("dense", 0), other=("second", 1))

    def names(text: str) -> list[str]:
        return [plan.layer.name for plan in plan_layers(layers, [text], PQ, [], plugins)[0]]

    with pytest.raises(UsageError, match="acme:dense"):
        names("dense")
    assert names("acme:dense") == ["features.0"]
    assert names("second") == names("other:second") == ["features.2"]
    assert names("conv") == CONVOLUTIONS
    for module in ("plugin_acme", "plugin_other"):
        sys.modules.pop(module)


def test_reasons_are_of_the_selected(layers: list[LayerInfo]) -> None:
    for entry in installed_plugins().selectors:
        text = "largest:2" if entry.name == "largest" else entry.name
        found: Mapping[str, str] = entry.item.select(layers, text)
        assert found.keys() <= {layer.name for layer in layers}
        assert all(found.values())
