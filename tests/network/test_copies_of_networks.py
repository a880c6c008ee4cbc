"""Networks are pickled, copied, sent to processes, traced, and compressed again."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.errors import PluginError, UsageError
from vqzoo.plugin.manager import installed_plugins

KINDS = ("compressed", "decoded", "codes")
METHODS = {
    "km": {"k": 16},
    "pq": {"k": 8, "d": 4},
    "rq": {"k": 8, "d": 4, "stages": 2},
    "svd": {"rank": 2},
    "diba": {},
    "deep-compression": {},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a small network whose batch norms do nothing."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7)
    folder = tmp_path_factory.mktemp("copies") / "artifact"
    vqzoo.compress(model, "pq", layers="all", k=16, d=2).save(folder)
    return folder


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, nn.Module]:
    model = vqzoo.load(folder)
    return {
        "compressed": vqzoo.compress(model, "pq", layers="all", k=16, d=2),
        "decoded": model,
        "codes": vqzoo.load(folder, mode="codes"),
    }


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))


def pickled(network: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(network))


def saved_by_torch(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [pickled, saved_by_torch, copy.deepcopy])
def test_copies_are_the_same_network(
    kind: str,
    copied: Callable[[nn.Module], nn.Module],
    networks: dict[str, nn.Module],
    images: Tensor,
) -> None:
    network = networks[kind]
    again = copied(network)
    assert again is not network
    assert [type(m) for m in again.modules()] == [type(m) for m in network.modules()]
    assert torch.equal(again(images), network(images))


class Logits(Dataset[list[Tensor]]):
    """Runs networks on an image, in whatever process it is asked for it."""

    def __init__(self, networks: list[nn.Module], images: Tensor) -> None:
        self.networks, self.images = networks, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        with torch.no_grad():
            return [network(self.images[index : index + 1]) for network in self.networks]


@pytest.mark.slow
def test_spawned_workers_run_them(networks: dict[str, nn.Module], images: Tensor) -> None:
    data = Logits(list(networks.values()), images)
    loader = DataLoader(data, num_workers=1, batch_size=None, multiprocessing_context="spawn")
    for index, logits in enumerate(loader):
        for found, expected in zip(logits, data[index], strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["compressed", "codes"])
def test_torch_exports_them(kind: str, networks: dict[str, nn.Module], images: Tensor) -> None:
    network = networks[kind]
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (images,)), file)
    file.seek(0)
    found = torch.export.load(file).module()(images)
    torch.testing.assert_close(found, network(images))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore")  # torch deprecates jit.trace, which people still use
def test_torch_traces_every_way_of_decoding(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(16, 32, 1), nn.Flatten(), nn.Linear(64, 16))
    small = vqzoo.compress(model, method, layers="all", **METHODS[method])
    x = torch.randn(3, 16, 2)
    expected = small(x)
    network = small.module
    for layer in small.layers:
        run_from_code(network, layer.layer.name, layer.compressed, installed_plugins())
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    for strict in (False, True):
        found = torch.export.export(network, (x,), strict=strict).module()(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
    traced = torch.jit.trace(network, x, check_trace=False)
    torch.testing.assert_close(traced(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_compressed_again(
    kind: str, networks: dict[str, nn.Module], images: Tensor, tmp_path: Path
) -> None:
    network = networks[kind]
    before = network(images)
    again = vqzoo.compress(network, "rtn", layers="all", format="int8")
    again.save(tmp_path / "again")
    assert not any(isinstance(module, CodedLayer) for module in again.modules())
    found = vqzoo.load(tmp_path / "again")(images)
    assert torch.equal(found, again(images))
    assert (found - before).abs().max() < 0.1 * before.abs().max()
    assert torch.equal(network(images), before)


FILE_METHOD = """
import torch
from vqzoo.plugin import Code, Floats, Quantizer, hookimpl

class Mine(Quantizer):
    name = "mine"
    def quantize(self, weight, options, context):
        return Code(tuple(weight.shape), {"values": Floats.of(weight)})
    def reconstruct(self, code, params):
        return torch.from_numpy(params["values"].detach().numpy().copy())

@hookimpl
def vqzoo_quantizers():
    return [Mine()]
"""


@pytest.fixture
def of_a_file(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A network that runs from codes of a plugin file, and the file."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(FILE_METHOD)
    model = timm.create_model("test_resnet", num_classes=7)
    vqzoo.compress(model, "mine", layers="dense", plugins=[plugin]).save(tmp_path / "artifact")
    return vqzoo.load(tmp_path / "artifact", mode="codes", plugins=[plugin]), plugin


def test_a_pickled_network_finds_its_plugin_file(
    of_a_file: tuple[nn.Module, Path], images: Tensor
) -> None:
    network, plugin = of_a_file
    data = pickle.dumps(network)
    assert torch.equal(pickle.loads(data)(images), network(images))
    plugin.unlink()
    with pytest.raises(UsageError, match=r"there is no plugin file .*mine\.py"):
        pickle.loads(data)


def test_a_method_that_torch_cannot_trace_is_named(
    of_a_file: tuple[nn.Module, Path], images: Tensor
) -> None:
    network, _ = of_a_file
    with pytest.raises(
        PluginError, match=r"torch cannot trace the decoding of .*mine: .*mode='decoded'"
    ):
        torch.export.export(network, (images,), strict=False)
