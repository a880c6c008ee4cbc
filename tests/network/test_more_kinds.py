"""Transposed and 3-D convolutions, embeddings, and the input projections of attention."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.calibration.layer_inputs import layer_inputs
from vqzoo.calibration.second_order.statistics import second_order
from vqzoo.compression.view import compressible_layers, layer_name, weight_key
from vqzoo.data.batches import Batch
from vqzoo.errors import UsageError
from vqzoo.progress import SilentWatcher


class Kinds(nn.Module):
    """One layer of each kind, which images go through."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.up = nn.ConvTranspose2d(in_chans, 16, 3, stride=2, groups=1)
        self.grouped_up = nn.ConvTranspose2d(16, 8, 3, groups=2)
        self.volume = nn.Conv3d(2, 6, (3, 3, 2), stride=2, padding=1, groups=2)
        self.line_up = nn.ConvTranspose1d(6, 12, 4, stride=2)
        self.volume_up = nn.ConvTranspose3d(12, 4, 2)
        self.position = nn.Embedding(40, 12)
        self.bag = nn.EmbeddingBag(30, 12, mode="sum")
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.cross = nn.MultiheadAttention(12, 2, kdim=4, vdim=4, batch_first=True)
        self.head = nn.Linear(12, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, 6, 6) to (B, 40, 12)."""
        x = self.grouped_up(self.up(x))  # (B, 8, 15, 15)
        x = self.volume(x.unflatten(1, (2, 4))).flatten(2)  # (B, 6, places)
        x = self.line_up(x)[..., :40]
        volume = self.volume_up(x[..., :8].unflatten(2, (2, 2, 2)))  # (B, 4, 3, 3, 3)
        places = torch.arange(40, device=x.device)
        bag = self.bag(torch.arange(30, device=x.device).view(1, 30))
        x = x.mT + self.position(places) + bag
        x = x + self.attention(x, x, x, need_weights=False)[0]
        memory = volume.flatten(2).mT
        return x + self.cross(x, memory, memory, need_weights=False)[0]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x).mean(1))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head


default_cfgs = generate_default_cfgs(
    {"kinds_of_layers": {"num_classes": 10, "input_size": (3, 6, 6), "classifier": "head"}}
)


@register_model
def kinds_of_layers(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    model: nn.Module = build_model_with_cfg(Kinds, "kinds_of_layers", pretrained, **kwargs)
    return model


NEW = {
    "up": ("conv_transpose2d", (3, 144)),
    "grouped_up": ("conv_transpose2d", (16, 36)),
    "volume": ("conv3d", (6, 18)),
    "line_up": ("conv_transpose1d", (6, 48)),
    "volume_up": ("conv_transpose3d", (12, 32)),
    "position": ("embedding", (40, 12)),
    "bag": ("embedding", (30, 12)),
    "attention.in_proj_weight": ("attention", (36, 12)),
    "cross.q_proj_weight": ("attention", (12, 12)),
    "cross.k_proj_weight": ("attention", (12, 4)),
    "cross.v_proj_weight": ("attention", (12, 4)),
}
OLD = {"attention.out_proj", "cross.out_proj", "head"}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("kinds_of_layers").eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_each_kind_is_a_matrix_with_its_first_axis_as_rows(model: nn.Module) -> None:
    layers, passed = compressible_layers(model)
    assert passed == {}
    assert {layer.name: (layer.kind, layer.matrix_shape) for layer in layers
            if layer.name not in OLD} == NEW  # fmt: skip
    parameters = dict(model.named_parameters())
    for layer in layers:
        key = weight_key(layer.name)
        assert layer_name(key) == layer.name
        assert layer.matrix_shape == parameters[key].flatten(1).shape


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("rtn", {"format": "int8"}), ("km", {"k": 16}), ("pq", {"d": 2, "k": 16}), ("svd", {"rank": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: str(value))
def test_what_is_compressed_is_saved_and_runs(
    method: str, options: dict[str, Any], model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    before = copy.deepcopy(model.state_dict())
    small = vqzoo.compress(model, method, layers="all", **options)
    compressed = {layer.layer.name for layer in small.layers}
    assert compressed | small.skipped.keys() == NEW.keys() | OLD
    assert len(compressed & NEW.keys()) >= 8
    if method == "rtn":
        assert compressed == NEW.keys() | OLD
        for name in compressed:
            weight, decoded = (m.get_parameter(weight_key(name)) for m in (model, small.module))
            assert 0 < (weight - decoded).abs().max() <= weight.abs().max() / 250
        expected = model(images)
        assert (small(images) - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    small.save(tmp_path / "small")
    entries = open_artifact(tmp_path / "small").metadata.layers
    assert entries.keys() == {weight_key(name) for name in compressed}
    for mode in ("decoded", "codes"):
        loaded = vqzoo.load(tmp_path / "small", mode=mode)  # type: ignore[arg-type]
        assert (loaded(images) - small(images)).abs().max() < 1e-4 * small(images).abs().max()
    assert type(loaded.attention.in_proj_weight) is nn.Parameter


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("dense", OLD | {name for name, (kind, _) in NEW.items() if kind == "attention"}),
        ("conv", {name for name, (kind, _) in NEW.items() if kind.startswith("conv")}),
        ("*attention*", {"attention.in_proj_weight", "attention.out_proj"}),
        ("largest:2", {"grouped_up", "position"}),
        ("position", {"position"}),
    ],
)
@pytest.mark.filterwarnings("ignore::vqzoo.errors.CoverageWarning")
def test_selectors_know_the_kinds(layers: str, expected: set[str], model: nn.Module) -> None:
    small = vqzoo.compress(model, "rtn", layers=layers)
    assert {layer.layer.name for layer in small.layers} == expected


class Notes(SilentWatcher):
    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def note(self, layer: str, text: str) -> None:
        self.texts.append((layer, text))


def test_calibration_leaves_out_what_it_cannot_observe(model: nn.Module, images: Tensor) -> None:
    notes = Notes()
    plain = vqzoo.compress(model, "km", layers="all", k=4)
    small = vqzoo.compress(model, "km", layers="all", k=4, calibrate=[images], progress=notes)
    unseen = {layer for layer, text in notes.texts if "its inputs were not seen" in text}
    assert NEW.keys() - unseen == {"volume"}
    for name in NEW:
        one, other = (m.module.get_parameter(weight_key(name)) for m in (plain, small))
        assert torch.equal(one, other) == (name != "volume")


def patches_of_volume(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What the Conv3d multiplies its matrix by, (positions, 18) for each of its two groups."""
    seen: list[Tensor] = []
    hook = model.get_submodule("volume").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        model(images)
    hook.remove()
    padded = F.pad(seen[0], (1,) * 6)
    return [
        torch.stack([
            padded[b, g : g + 1, i : i + 3, j : j + 3, k : k + 2].flatten()
            for b in range(len(images))
            for i in range(0, padded.shape[2] - 2, 2)
            for j in range(0, padded.shape[3] - 2, 2)
            for k in range(0, padded.shape[4] - 1, 2)
        ])
        for g in range(2)
    ]  # fmt: skip


def test_inputs_of_a_3d_convolution_are_its_patches(model: nn.Module, images: Tensor) -> None:
    layers, _ = compressible_layers(model)
    rows = layer_inputs(model, layers, [Batch(images, None)], len(images))
    assert rows.keys() == {"volume", "head"}
    patches = torch.cat(patches_of_volume(model, images)).tolist()
    assert {tuple(row) for row in rows["volume"][:200].tolist()} <= set(map(tuple, patches))


def test_second_order_statistics_leave_out_what_multiplies_no_inputs(
    model: nn.Module, images: Tensor
) -> None:
    layers, _ = compressible_layers(model)
    found = second_order(model, layers, [Batch(images, None)], len(images))
    assert found.keys() == {"volume", "head"}
    for moment, patches in zip(
        found["volume"].hessian[0], patches_of_volume(model, images), strict=True
    ):
        torch.testing.assert_close(moment, patches.T @ patches / len(patches))
    new = [layer for layer in layers if layer.kind in ("embedding", "attention")]
    assert second_order(model, new, [Batch(images, None)], len(images)) == {}


@pytest.mark.filterwarnings("ignore::vqzoo.errors.CoverageWarning")
def test_repair_corrects_the_bias_of_each_output_channel(images: Tensor) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 4))
    with torch.no_grad():
        model[0].weight += 0.3  # so that rounding shifts means
    shifted = images + 2
    small = vqzoo.compress(model, "rtn", layers="0", format="int2", repair=[shifted])
    assert small.repaired is not None
    assert small.repaired.biases == ["0"]
    learned = shifted[torch.arange(len(shifted)) % 4 != 3]
    means = [network[0](learned).mean((0, 2, 3)) for network in (model, small.module)]
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-4)


def test_repair_of_every_kind(model: nn.Module, images: Tensor) -> None:
    small = vqzoo.compress(model, "rtn", layers="all", format="int3", repair=[images])
    assert small.repaired is not None
    assert small.repaired.divergence[1] <= small.repaired.divergence[0]
    assert not any("proj_weight" in name for name in small.repaired.biases)


def test_fine_tuning_keeps_the_projections_of_attention(
    model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    small = vqzoo.compress(model, "km", layers="all", k=4)
    better = vqzoo.finetune(small, [images], teacher=model, epochs=2, lr=1e-3)
    key = "attention.in_proj_weight"
    assert torch.equal(better.module.get_parameter(key), small.module.get_parameter(key))
    changed = "position.weight"
    assert not torch.equal(
        better.module.get_parameter(changed), small.module.get_parameter(changed)
    )
    better.save(tmp_path / "better")
    assert torch.equal(vqzoo.load(tmp_path / "better")(images), better(images))


class TiedLanguage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 20)
        self.out = nn.Linear(20, 30, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.table(x))
        return out


def test_an_embedding_shares_the_weight_of_a_linear_layer() -> None:
    small = vqzoo.compress(TiedLanguage(), "rtn")
    assert [layer.layer.name for layer in small.layers] == ["out"]
    assert small.skipped == {"table": "shares the weight of out"}
    assert small.module.out.weight is small.module.table.weight
    assert small.coverage.share == 1


def test_a_module_with_the_name_of_a_parameter_is_told_apart() -> None:
    model = nn.ModuleDict({"in_proj_weight": nn.Linear(8, 8), "head": nn.Linear(8, 30)})
    small = vqzoo.compress(model, "rtn")
    assert "nn.MultiheadAttention's parameters" in small.skipped["in_proj_weight"]
    with pytest.raises(UsageError, match="in_proj_weight cannot be compressed"):
        vqzoo.compress(model, "rtn", layers="in_proj_weight")


def test_attention_itself_is_a_model() -> None:
    model = nn.MultiheadAttention(16, 4)
    small = vqzoo.compress(model, "rtn", format="int8")
    assert {layer.layer.name for layer in small.layers} == {"in_proj_weight", "out_proj"}
    x = torch.randn(3, 1, 16)
    assert (small(x, x, x)[0] - model(x, x, x)[0]).abs().max() < 0.02
