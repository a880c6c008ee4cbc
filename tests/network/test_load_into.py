"""`vqzoo.save_weights` and `vqzoo.load_into`: networks that timm cannot create."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.finetuning.finetune import finetune

MODES = ("decoded", "codes")


class Tied(nn.Module):
    """Tied weights (of them one that is compressed), buffers of several dtypes, and half layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encode = nn.Linear(32, 32)
        self.decode = nn.Linear(32, 32)
        self.decode.weight = self.encode.weight
        self.norm = nn.BatchNorm1d(32)
        self.twin = self.norm  # one module under two names
        self.narrow = nn.Linear(32, 32).half()
        self.last = nn.Linear(32, 4)
        self.shift = nn.Parameter(torch.randn(()))
        self.register_buffer("order", torch.randperm(32))
        self.register_buffer("gaps", torch.tensor([torch.nan, torch.inf, -0.0]))
        self.register_buffer("mask", torch.rand(32) > 0.2)
        self.register_buffer("scratch", torch.full((3,), float(seed)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.decode(self.norm(self.encode(x)).relu()) + self.shift
        x = self.narrow(x.half()[:, self.order] * self.mask).float()
        out: Tensor = self.last(x)
        return out


class Merged(nn.Module):
    """A block whose branches are merged into one convolution after training, as RepVGG's are."""

    def __init__(self) -> None:
        super().__init__()
        self.wide: nn.Conv2d | None = nn.Conv2d(8, 8, 3, padding=1)
        self.point: nn.Conv2d | None = nn.Conv2d(8, 8, 1)
        self.merged: nn.Conv2d | None = None

    @torch.no_grad()
    def merge(self) -> "Merged":
        assert self.wide is not None
        assert self.point is not None
        merged = nn.Conv2d(8, 8, 3, padding=1)
        merged.weight.copy_(self.wide.weight)
        merged.weight[:, :, 1:2, 1:2] += self.point.weight
        assert merged.bias is not None
        merged.bias.copy_(self.wide.bias + self.point.bias)  # type: ignore[operator]
        self.wide, self.point, self.merged = None, None, merged
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            out: Tensor = self.merged(x)
            return out
        assert self.wide is not None
        assert self.point is not None
        return self.wide(x) + self.point(x)  # type: ignore[no-any-return]


def with_own_head() -> nn.Module:
    model = timm.create_model("test_resnet")
    model.fc = nn.Sequential(nn.Linear(model.num_features, 32), nn.SiLU(), nn.Linear(32, 5))
    return model


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "torchvision": (lambda: torchvision.models.resnet18(num_classes=10), images(64)),
    "own head": (with_own_head, images(96)),
    "own class": (Tied, torch.randn(4, 32)),
    "re-parameterized": (lambda: Merged().merge(), torch.randn(1, 8, 9, 9)),
    "one layer": (lambda: nn.Linear(32, 32), torch.randn(3, 32)),
    "other activations": (lambda: timm.create_model("test_resnet", act_layer="silu"), images(96)),
}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype
        and torch.allclose(one[key].double(), other[key].double(), rtol=0, atol=0, equal_nan=True)
        for key in one
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_the_one_that_compress_returned(name: str, tmp_path: Path) -> None:
    build, x = NETWORKS[name]
    torch.manual_seed(1)
    small = vqzoo.compress(build(), "pq", layers="all", k=8, d=4)
    vqzoo.save_weights(small, tmp_path / "a")
    expected = small(x)
    model = build().train()
    before = {key: tensor.data_ptr() for key, tensor in model.state_dict().items()}
    loaded = vqzoo.load_into(model, tmp_path / "a")
    assert loaded is model
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert same(loaded.state_dict(), small.module.state_dict())
    assert {key: tensor.data_ptr() for key, tensor in loaded.state_dict().items()} == before
    assert torch.equal(loaded(x), expected)

    coded = vqzoo.load_into(build(), tmp_path / "a", mode="codes")
    assert (coded(x) - expected).abs().max() <= 1e-4 * expected.abs().max()
    held = sum(parameter.numel() for parameter in coded.parameters())
    assert held < sum(parameter.numel() for parameter in loaded.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_ties_stay_and_buffers_outside_the_state_dict_are_the_networks(
    mode: Any, tmp_path: Path
) -> None:
    small = vqzoo.compress(Tied(), "km", layers="all", k=4)
    vqzoo.save_weights(small, tmp_path / "a")
    aliases = open_artifact(tmp_path / "a").metadata.aliases
    assert aliases["decode.weight"] == "encode.weight"
    assert aliases["twin.running_mean"] == "norm.running_mean"
    loaded = vqzoo.load_into(Tied(seed=7), tmp_path / "a", mode=mode)
    assert loaded.decode.weight is loaded.encode.weight
    assert loaded.scratch.tolist() == [7, 7, 7]
    assert torch.equal(loaded.order, small.module.order)
    x = torch.randn(4, 32)
    torch.testing.assert_close(loaded(x), small(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_what_stays_dense_may_be_stored_as_float16(mode: Any, tmp_path: Path) -> None:
    small = vqzoo.compress(Tied(), "km", layers="all", k=4)
    vqzoo.save_weights(small, tmp_path / "wide", layout="compact")
    vqzoo.save_weights(small, tmp_path / "narrow", rest="float16", layout="compact")
    sizes = [(tmp_path / name / "vqzoo.safetensors").stat().st_size for name in ("wide", "narrow")]
    assert sizes[1] < sizes[0]
    loaded = vqzoo.load_into(Tied(seed=7), tmp_path / "narrow", mode=mode)
    bias = small.module.last.bias
    assert not torch.equal(bias, bias.half().float())
    assert torch.equal(loaded.last.bias, bias.half().float())
    assert torch.equal(loaded.narrow.bias, small.module.narrow.bias)
    assert loaded.last.bias.dtype == torch.float32
    if mode == "decoded":
        assert torch.equal(loaded.last.weight, small.module.last.weight)


class Untied(Tied):
    """The same keys, each with a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.decode.weight = nn.Parameter(torch.randn(32, 32))


@pytest.mark.parametrize("mode", MODES)
def test_a_network_without_the_ties_takes_the_values_and_one_with_others_is_refused(
    mode: Any, tmp_path: Path
) -> None:
    small = vqzoo.compress(Tied(), "km", layers="all", k=4)
    vqzoo.save_weights(small, tmp_path / "tied")
    loaded = vqzoo.load_into(Untied(), tmp_path / "tied", mode=mode)
    assert loaded.decode.weight is not loaded.encode.weight
    x = torch.randn(4, 32)
    torch.testing.assert_close(loaded(x), small(x), rtol=1e-4, atol=1e-4)

    vqzoo.save_weights(vqzoo.compress(Untied(), "km", layers="all", k=4), tmp_path / "untied")
    unchanged(
        Tied(), tmp_path / "untied", mode, ArtifactError, "'encode.weight' shares memory with "
        "'decode.weight' in the network"
    )  # fmt: skip


def unchanged(
    model: nn.Module, folder: Path, mode: Any, error: type[VqzooError], text: str
) -> None:
    """Check that loading is refused with a text, and leaves the network as it was."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modules = dict(model.named_modules())
    model.train()
    with pytest.raises(error) as caught:
        vqzoo.load_into(model, folder, mode=mode)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert same(model.state_dict(), before)
    assert dict(model.named_modules()) == modules
    assert model.training


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's smallest ResNet, of ten classes."""
    folder = tmp_path_factory.mktemp("saved") / "a"
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    vqzoo.save_weights(vqzoo.compress(model, "rtn", layers="all", format="int4"), folder)
    return folder


def resnet(**arguments: Any) -> nn.Module:
    model: nn.Module = torchvision.models.resnet18(num_classes=10, **arguments)
    return model


def without_a_head() -> nn.Module:
    model = resnet()
    model.fc = nn.Identity()
    return model


def one_channel() -> nn.Module:
    model = resnet()
    model.conv1 = nn.Conv2d(1, 64, 7, bias=False)
    return model


OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another shape": (
        one_channel,
        "'conv1.weight' is float32 (64, 3, 7, 7) in the artifact and float32 (64, 1, 7, 7) in the "
        "network",
    ),
    "another dtype": (
        lambda: resnet().half(),
        "'conv1.weight' is float32 (64, 3, 7, 7) in the artifact and float16 (64, 3, 7, 7) in",
    ),
    "fewer entries": (without_a_head, "does not fit the network: the network has no 'fc."),
    "more entries": (
        lambda: torchvision.models.resnet34(num_classes=10),
        "the artifact lacks 'layer1.2.conv1.weight', 'layer1.2.bn1.weight', 'layer1.2.bn1.bias' "
        "and 93 more",
    ),
    "both": (
        lambda: nn.Sequential(OrderedDict(module=resnet())),
        "the artifact lacks 'module.conv1.weight', 'module.bn1.weight', 'module.bn1.bias' and 119 "
        "more; the network has no 'conv1.weight', ",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("other", OTHERS)
def test_other_networks_are_refused_by_name_and_stay_unchanged(
    other: str, mode: Any, saved: Path
) -> None:
    build, text = OTHERS[other]
    unchanged(build(), saved, mode, ArtifactError, text)


class Remembers(nn.Linear):
    """A layer that keeps more in the state dict than tensors of its own."""

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.in_features)

    def set_extra_state(self, state: Tensor) -> None:
        assert int(state) == self.in_features


class Forgets(nn.Linear):
    """A layer that leaves its bias out of the state dict."""

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, *_: Any) -> None:
        destination[prefix + "weight"] = self.weight.detach()


def with_buffer(buffer: Tensor) -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16))
    model.register_buffer("extra", buffer)
    return model


def computed() -> nn.Module:
    layer = nn.Linear(16, 16)
    layer.bias.requires_grad_(False).add_(layer.weight[0])
    return layer


def renamed() -> nn.Module:
    model = nn.Sequential()
    model.add_module("a::b", nn.Linear(16, 16))
    return model


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "extra state": (lambda: nn.Sequential(Remembers(16, 16)), "'0._extra_state' is neither"),
    "a bias left out": (lambda: nn.Sequential(Forgets(16, 16)), "lacks the parameter '0.bias'"),
    "a sparse buffer": (lambda: with_buffer(torch.eye(3).to_sparse()), "'extra' is sparse"),
    "complex numbers": (
        lambda: with_buffer(torch.ones(2, dtype=torch.complex64)), "'extra': an artifact cannot"
    ),
    "an expanded view": (
        lambda: with_buffer(torch.ones(1).expand(5)), "'extra' cannot be written in place"
    ),
    "a separator in a name": (renamed, "'a::b.weight': rename the module"),
}  # fmt: skip


@pytest.mark.parametrize("unfit", UNFIT)
def test_what_cannot_be_held_is_neither_saved_nor_loaded(unfit: str, tmp_path: Path) -> None:
    build, text = UNFIT[unfit]
    with pytest.raises(UsageError, match=text):
        vqzoo.save_weights(vqzoo.compress(build(), "km", k=4), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UsageError, match=text):
        vqzoo.load_into(build(), tmp_path / "a")


NO_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "a state dict": (
        lambda: resnet().state_dict(),
        r"\(OrderedDict of 122 entries\) is not a network",
    ),
    "a network without memory": (lambda: resnet().to("meta"), "conv1.weight is on the meta device"),
    "a computed parameter": (computed, "'bias' is the result of a computation with gradients"),
    "a lazy layer": (lambda: nn.Sequential(nn.LazyLinear(4)), "0.weight has no values yet"),
}


@pytest.mark.parametrize("model", NO_NETWORKS)
def test_what_has_no_weights_to_write_is_refused(model: str, saved: Path) -> None:
    build, text = NO_NETWORKS[model]
    with pytest.raises(UsageError, match=text):
        vqzoo.load_into(build(), saved)


def test_arguments_are_checked(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="decoded, codes"):
        vqzoo.load_into(resnet(), saved, mode="dense")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        vqzoo.load_into(resnet(), tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"what vqzoo\.compress returns, not a ResNet"):
        vqzoo.save_weights(resnet(), tmp_path / "a")  # type: ignore[arg-type]


def test_a_finished_folder_is_replaced_only_by_force(tmp_path: Path) -> None:
    model = nn.Linear(16, 16)
    vqzoo.save_weights(vqzoo.compress(model, "km", k=4), tmp_path / "a")
    before = (tmp_path / "a" / "vqzoo.safetensors").read_bytes()
    other = vqzoo.compress(model, "km", k=8)
    with pytest.raises(UsageError, match="force=True"):
        vqzoo.save_weights(other, tmp_path / "a")
    assert (tmp_path / "a" / "vqzoo.safetensors").read_bytes() == before
    vqzoo.save_weights(other, tmp_path / "a", packing="huffman", force=True)
    loaded = vqzoo.load_into(nn.Linear(16, 16), tmp_path / "a")
    assert torch.equal(loaded.weight, other.module.weight)
    vqzoo.save_weights(other, tmp_path / "b", packing="huffman")
    for name in ("config.json", "vqzoo.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_network_that_was_changed_after_compression_is_not_saved(tmp_path: Path) -> None:
    small = vqzoo.compress(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), "km", k=4)
    with torch.no_grad():
        small.module[1].weight[3, 5] += 1
    with pytest.raises(VqzooError, match=r"nothing was saved: '1\.weight'"):
        vqzoo.save_weights(small, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_repaired_and_fine_tuned_networks_are_saved_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4))
    batches = [torch.randn(16, 3, 8, 8) for _ in range(2)]
    small = vqzoo.compress(model, "pq", layers="all", k=4, d=4, repair=batches)
    better = finetune(small, batches, teacher=model, epochs=1)
    for name, network in (("repaired", small), ("tuned", better)):
        vqzoo.save_weights(network, tmp_path / name)
        torch.manual_seed(3)
        other = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4)
        )
        loaded = vqzoo.load_into(other, tmp_path / name)
        assert same(loaded.state_dict(), network.module.state_dict())


def test_artifacts_with_an_architecture_load_into_modules_of_the_same_keys(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    small = vqzoo.compress(model, "km", k=4)
    small.save(tmp_path / "a")
    loaded = vqzoo.load_into(timm.create_model("test_resnet", num_classes=3), tmp_path / "a")
    assert same(loaded.state_dict(), vqzoo.load(tmp_path / "a").state_dict())
