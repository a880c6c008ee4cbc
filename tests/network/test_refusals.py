"""What cannot be compressed is refused before any layer is; what can be folded is folded."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils as utils
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import vqzoo
from vqzoo.errors import UsageError, VqzooError
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


class Idle(SilentWatcher):
    """Fails the test when a layer is compressed."""

    def layer_started(self, name: str, index: int, total: int) -> None:
        raise AssertionError(f"work on {name} began")


def refusal(model: Any, **arguments: Any) -> str:
    with pytest.raises(UsageError) as caught:
        vqzoo.compress(model, "rtn", layers="all", progress=Idle(), **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))


def lazy_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d(affine=False))


def half_meta() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))


NOT_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (lambda: "resnet18", "'resnet18' is not a network"),
    "path": (lambda: Path("model.pt"), "model.pt"),
    "nothing": (lambda: None, "None is not a network"),
    "state dict": (lambda: net().state_dict(), "load_state_dict"),
    "checkpoint": (lambda: {"model": net().state_dict(), "epoch": 3}, "(dict of 2 entries)"),
    "class": (lambda: nn.Identity, "Identity is a class"),
    "list of layers": (lambda: [nn.Linear(2, 2)], "is not a network"),
    "lazy": (lazy, "1.weight has no values yet"),
    "lazy buffer": (lazy_norm, "1.running_mean has no values yet"),
    "meta": (half_meta, "1.weight is on the meta device"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_network_with_weights_is_refused_in_one_line(case: str) -> None:
    make, words = NOT_NETWORKS[case]
    assert words in refusal(make())
    with pytest.raises(UsageError) as caught:
        vqzoo.evaluate(make(), "fmnist", images=1)
    assert words in str(caught.value)


@pytest.mark.parametrize("given", ["resnet18", net(), net().state_dict()], ids=type)
def test_fine_tuning_takes_what_compress_returns(given: Any) -> None:
    with pytest.raises(UsageError, match=r"finetune takes what vqzoo\.compress returns, not a"):
        vqzoo.finetune(given, [torch.ones(2, 3, 8, 8)], teacher=net())


@pytest.mark.filterwarnings("ignore")
def test_networks_of_torchscript_are_refused() -> None:
    assert "TorchScript module" in refusal(torch.jit.script(nn.Linear(2, 2)))
    assert "TorchScript module" in refusal(torch.jit.trace(net(), torch.ones(1, 3, 8, 8)))


def with_weight(change: Callable[[Tensor], Tensor]) -> nn.Module:
    model = net()
    model[3].weight = nn.Parameter(change(model[3].weight.detach()), requires_grad=False)
    return model


UNUSUAL: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "float8": (lambda w: w.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "complex": (lambda w: w.to(torch.complex64), "complex64"),
    "integers": (lambda w: w.to(torch.int8), "int8"),
    "other float8": (lambda w: w.to(torch.float8_e5m2), "float8_e5m2"),
    "half-precision complex": (lambda w: w.to(torch.complex32), "complex32"),
}


@pytest.mark.parametrize("case", UNUSUAL)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_unusual_weights_stay_dense_and_are_refused_by_name(case: str) -> None:
    change, words = UNUSUAL[case]
    model = with_weight(change)
    small = vqzoo.compress(model, "rtn", layers="all")
    assert [layer.layer.name for layer in small.layers] == ["0"]
    assert words in small.skipped["3"]
    with pytest.raises(UsageError, match="3 cannot be compressed: its weight is"):
        vqzoo.compress(model, "rtn", layers="3", progress=Idle())
    assert words in refusal(model[3])  # nothing else is left


def locked() -> nn.Module:
    model = net()
    model[0].lock = threading.Lock()
    return model


def reading() -> nn.Module:
    model = net()
    model.batches = (batch for batch in [1, 2])
    return model


def remembering_deeply() -> nn.Module:
    model = net()
    model[0].seen = [torch.ones(2, requires_grad=True) * 2]
    return model


@pytest.mark.parametrize(
    ("make", "attribute"),
    [
        (locked, "0.lock (lock)"),
        (reading, "batches (generator)"),
        (remembering_deeply, "0.seen (list)"),
        (lambda: with_weight(Tensor.to_sparse), "3.weight (a sparse_coo tensor)"),
        (lambda: with_weight(Tensor.to_sparse_csr), "3.weight (a sparse_csr tensor)"),
    ],
)
def test_what_cannot_be_copied_is_named_before_the_work(
    make: Callable[[], nn.Module], attribute: str
) -> None:
    message = refusal(make())
    assert "cannot be copied" in message
    assert f"delete or replace {attribute}" in message


def test_a_tensor_with_a_history_is_no_obstacle() -> None:
    model = net()
    model[3].last = model(torch.ones(1, 3, 8, 8))
    small = vqzoo.compress(model, "rtn", layers="all")
    assert len(small.layers) == 2


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def pruned(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[3], "weight", amount=0.5)


def pruned_twice(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[3], "weight", amount=0.5)
    prune.ln_structured(model[3], "weight", amount=0.3, n=2, dim=0)
    prune.random_unstructured(model[3], "bias", amount=0.3)


def frozen_weight_norm(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[0])
    model.requires_grad_(False)


FOLDED: dict[str, Callable[[nn.Sequential], Any]] = {
    "prune": pruned,
    "pruned twice, and the bias": pruned_twice,
    "global pruning": lambda m: prune.global_unstructured(
        [(m[0], "weight"), (m[3], "weight")], prune.L1Unstructured, amount=0.4),
    "old weight norm": lambda m: utils.weight_norm(m[0]),
    "old spectral norm": lambda m: utils.spectral_norm(m[3]),
    "weight norm": lambda m: parametrizations.weight_norm(m[0]),
    "frozen weight norm": frozen_weight_norm,
    "spectral norm": lambda m: parametrizations.spectral_norm(m[3]),
    "orthogonal": lambda m: parametrizations.orthogonal(m[3]),
    "own parametrization": lambda m: parametrize.register_parametrization(
        m[3], "weight", Halved()),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDED)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_computed_weights_are_folded_exactly_on_a_copy(case: str) -> None:
    model = net()
    FOLDED[case](model)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model(x)  # in training mode, as a user's network would be
    state = copy.deepcopy(model.state_dict())
    model.eval()
    expected = model(x).detach()
    model.train()
    small = vqzoo.compress(model, "rtn", layers="0", format="fp16")
    assert {name for name, _ in small.module.named_parameters()} == {
        "0.weight",
        "0.bias",
        "3.weight",
        "3.bias",
    }
    assert (small(x) - expected).abs().max() < 2e-3 * expected.abs().max()
    after = model.state_dict()
    assert model.training
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)


class Notes(SilentWatcher):
    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def note(self, layer: str, text: str) -> None:
        self.texts.append((layer, text))


def test_folding_is_noted_and_repairs() -> None:
    model = net()
    prune.l1_unstructured(model[3], "weight", amount=0.5)
    notes, images = Notes(), [torch.randn(4, 3, 8, 8)]
    vqzoo.compress(model, "rtn", layers="all", calibrate=images, repair=images, progress=notes)
    assert ("3", "the pruning mask of its weight became plain") in notes.texts


class Stuck(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stuck":
        raise RuntimeError("this parametrization stays where it is")


def test_what_cannot_be_folded_says_so() -> None:
    model = net()
    parametrize.register_parametrization(model[3], "weight", Stuck())
    message = refusal(model)
    assert "this parametrization stays where it is" in message


def test_all_is_not_suggested_for_all() -> None:
    with pytest.raises(UsageError, match="the network has no layer that can be compressed") as no:
        vqzoo.compress(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), "rtn", layers="all")
    assert "did you mean" not in str(no.value)
    with pytest.raises(UsageError, match="the network has linear layers only") as conv:
        vqzoo.compress(nn.Sequential(nn.Linear(3, 3)), "rtn", layers="conv")
    assert "did you mean" not in str(conv.value)
    with pytest.raises(VqzooError, match="did you mean dense"):
        vqzoo.compress(nn.Sequential(nn.Linear(3, 3)), "rtn", layers="dens")


def test_a_pruned_network_of_timm_is_saved_with_plain_weights(tmp_path: Path) -> None:
    model = find_model("alexnet_mini.fmnist", SilentWatcher()).module
    layer = model.get_submodule("classifier.1")
    prune.l1_unstructured(layer, "weight", amount=0.9)
    small = vqzoo.compress(model, "prune", layers="classifier.1", density=0.1)
    small.save(tmp_path / "pruned")
    weight = vqzoo.load(tmp_path / "pruned").get_parameter("classifier.1.weight")
    assert torch.equal(weight, small.module.get_parameter("classifier.1.weight"))
    assert (weight - layer.weight).abs().max() < 1e-3 * layer.weight.abs().max()
