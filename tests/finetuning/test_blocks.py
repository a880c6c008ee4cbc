"""Block-wise reconstruction: which blocks, what they learn from, and what is kept."""

import copy
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.data.batches import Batch, Data
from vqzoo.finetuning.recovery.blocks.activations import collect_pairs, output_weights
from vqzoo.finetuning.recovery.blocks.reconstruct import PATIENCE, Reconstructed, reconstruct_blocks
from vqzoo.finetuning.recovery.blocks.units import find_units
from vqzoo.finetuning.recovery.state import RecoveryState
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher

LAYERS = (nn.Linear, nn.Conv2d)
NONE = RecoveryState(None)


class Residual(nn.Module):
    """A residual block of two layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x).relu())
        return out


class Recurrent(nn.Module):
    """A network that calls one block twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Residual()]), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks[0](self.blocks[0](x)))
        return out


class Inner(nn.Module):
    """A block whose layers are in a list within it, as torchvision's inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x)
        return out


def layers_of(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, LAYERS)]


@pytest.mark.parametrize(
    ("network", "units"),
    [
        (nn.Sequential(nn.Linear(8, 8), Residual(), Residual()), ["0", "1", "2"]),
        (Recurrent(), ["head"]),
        (nn.Sequential(Inner(), nn.Linear(8, 3)), ["0", "1"]),
    ],
    ids=["residual", "called-twice", "lists-within"],
)
def test_blocks_are_the_modules_in_lists_of_a_class_of_their_own(
    network: nn.Module, units: list[str]
) -> None:
    assert find_units(network, layers_of(network), torch.randn(2, 8)) == units


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("test_resnet", ["conv1.0", "layer1.0", "layer4.0", "fc"]),
        ("test_vit", ["patch_embed.proj", "blocks.0", "blocks.5", "head"]),
        ("test_efficientnet", ["conv_stem", "blocks.0.0", "blocks.4.0", "classifier"]),
    ],
)
def test_blocks_of_networks_of_timm(name: str, some: list[str]) -> None:
    network = timm.create_model(name).eval()
    images = torch.randn(2, *network.pretrained_cfg["input_size"])
    units = find_units(network, layers_of(network), images)
    assert [unit for unit in units if unit in some] == some
    assert not any(one.startswith(f"{other}.") for one in units for other in units)


def test_weights_of_outputs_are_what_they_do_to_centred_logits() -> None:
    """z = Ay: with centred rows of A, E[(∂(vᵀz)/∂y_j)²] is the squared norm of its column j."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 7)).requires_grad_(False)
    views = list(torch.randn(4000, 4).split(100))
    weights = output_weights(network, ["0"], views, torch.Generator().manual_seed(1))["0"]
    matrix = network[1].weight - network[1].weight.mean(0)
    expected = matrix.square().sum(0)
    torch.testing.assert_close(weights, expected + 0.3 * expected.mean(), rtol=0.1, atol=0)


def test_inputs_and_outputs_are_cached_in_parts() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 8), Residual()).requires_grad_(False)
    small = copy.deepcopy(dense)
    small[0].weight += 0.1
    batches = list(torch.randn(30, 4).split(10))
    size = 10 * (8 + 8) * 2
    whole = list(collect_pairs(small, dense, "1", batches, 3 * size))
    parts = list(collect_pairs(small, dense, "1", batches, size))
    assert (len(whole), len(parts)) == (1, 3)
    assert sum(part.inputs.nbytes + part.outputs.nbytes for part in parts) == 3 * size
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole[0].inputs)
    images = torch.cat(batches)
    assert torch.equal(whole[0].inputs, small[0](images).half())
    torch.testing.assert_close(whole[0].outputs, dense(images).half())


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    blocks = [Residual() for _ in range(PATIENCE + 2)]
    return nn.Sequential(*blocks, nn.Linear(8, 5)).eval().requires_grad_(False)


def images_of(seed: int) -> Data:
    images = torch.randn(64, 8, 1, 1, generator=torch.Generator().manual_seed(seed))
    return Data("noise", 64, None, "none", lambda: iter([Batch(images, None)]))


class Flat(nn.Module):
    """A network on vectors, given as images of one pixel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x.flatten(1))
        return out


class Stop(SilentWatcher):
    """Interrupts at a block."""

    def __init__(self, block: str) -> None:
        self.block, self.blocks = block, list[str]()

    @contextmanager
    def training(self, text: str):
        self.blocks.append(text.rpartition(" ")[2])
        if self.blocks[-1] == self.block:
            raise KeyboardInterrupt
        yield lambda done, total, metrics: None


def rebuilt(dense: nn.Module, judge=None, memory: int = 1 << 20, **options) -> Reconstructed:
    network = Flat(dense).eval()
    small = vqzoo.compress(network, "km", layers="all", k=3)
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    held_out = torch.cat([batch.images for batch in images_of(2)])

    def error(decoded: nn.Module) -> float:
        with torch.no_grad():
            return float((decoded(held_out) - network(held_out)).square().mean())

    return reconstruct_blocks(
        small.module, codes, network, images_of(1), judge or error, installed_plugins(),
        options.pop("watcher", SilentWatcher()), seed=0, device=torch.device("cpu"),
        state=options.pop("state", NONE), memory=memory,
    )  # fmt: skip


def test_blocks_learn_what_dense_blocks_return(dense: nn.Module) -> None:
    found = rebuilt(dense)
    start = rebuilt(dense, judge=lambda network: 1.0)
    held_out = torch.cat([batch.images for batch in images_of(3)])
    with torch.no_grad():
        errors = [
            float((one(held_out) - dense(held_out.flatten(1))).square().mean())
            for one in (found.module, start.module)
        ]
    assert errors[0] < 0.7 * errors[1]
    assert found.kept
    assert set(found.kept) <= set(found.tried)
    in_parts = rebuilt(dense, memory=1)
    assert in_parts.divergence < 0.8 * rebuilt_start(dense)


def rebuilt_start(dense: nn.Module) -> float:
    """The divergence before reconstruction."""
    seen: list[float] = []
    held_out = torch.cat([batch.images for batch in images_of(2)])

    def judge(network: nn.Module) -> float:
        with torch.no_grad():
            error = (network(held_out) - dense(held_out.flatten(1))).square().mean()
        seen.append(float(error))
        return 0.0

    rebuilt(dense, judge=judge)
    return seen[0]


def test_blocks_that_do_not_help_change_nothing_and_end_it(dense: nn.Module) -> None:
    found = rebuilt(dense, judge=lambda network: 1.0)
    assert found.kept == []
    assert len(found.tried) == PATIENCE
    small = vqzoo.compress(Flat(dense).eval(), "km", layers="all", k=3)
    for key, tensor in small.module.state_dict().items():
        assert torch.equal(tensor, found.module.state_dict()[key]), key


def test_reconstruction_goes_on_where_it_was_interrupted(dense: nn.Module, tmp_path: Path) -> None:
    whole = rebuilt(dense).module.state_dict()
    state = RecoveryState(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rebuilt(dense, state=state, watcher=Stop("network.2"))
    watcher = Stop("none")
    resumed = rebuilt(dense, state=state, watcher=watcher).module.state_dict()
    assert watcher.blocks[0] == "network.2"
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())
