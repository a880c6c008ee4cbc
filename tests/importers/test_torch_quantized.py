"""`vqzoo import --from torch-quantized`: state dicts of torch.ao.quantization."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vqzoo
from tests.importers.layouts import ARCHITECTURE, network_state
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

quantized = pytest.importorskip("torchvision.models.quantization")

Fields = dict[str, Any]


def rows(weight: Tensor, kind: torch.dtype = torch.qint8, axis: int = 0) -> Tensor:
    """A weight in eight bits, with a scale for each row."""
    sizes = weight.movedim(axis, 0).flatten(1).abs().amax(1) / 127
    return torch.quantize_per_channel(weight, sizes, torch.zeros(len(sizes)).long(), axis, kind)


def contents() -> Fields:
    """A file's contents: norms folded into convolutions, one scale for the first of these, and a
    packed Linear."""
    content: Fields = {}
    for key, tensor in network_state().items():
        name = key.rpartition(".")[0]
        if tensor.dim() < 2 or name == "fc":
            continue
        content |= {key: rows(tensor), f"{name}.bias": torch.randn(len(tensor))}
        content |= {f"{name}.scale": torch.tensor(0.1), f"{name}.zero_point": torch.tensor(3)}
    first = next(iter(content))
    content[first] = torch.quantize_per_tensor(network_state()[first], 0.03, 7, torch.quint8)
    state = network_state()
    content["fc.scale"], content["fc.zero_point"] = torch.tensor(0.2), torch.tensor(60)
    content["fc._packed_params.dtype"] = torch.qint8
    content["fc._packed_params._packed_params"] = (rows(state["fc.weight"]), state["fc.bias"])
    content |= {"quant.scale": torch.ones(1), "quant.zero_point": torch.zeros(1)}
    return content


def test_integers_rows_and_packed_layers_are_imported(tmp_path: Path) -> None:
    content = contents()
    torch.save(content, tmp_path / "small.pth")
    import_file(tmp_path / "small.pth", "torch-quantized", ARCHITECTURE, tmp_path / "out")
    network = vqzoo.load(tmp_path / "out")
    state, layers = network.state_dict(), open_artifact(tmp_path / "out").metadata.layers
    assert torch.equal(state["fc.bias"], content["fc._packed_params._packed_params"][1])
    content["fc.weight"] = content["fc._packed_params._packed_params"][0]
    first = next(iter(content))
    assert sum(tensor.dim() > 1 for tensor in state.values()) == len(layers)
    for key in layers:
        expected = content[key].dequantize()
        if key == first:
            expected = (content[key].int_repr().float() - 7) * torch.tensor(0.03)
        assert torch.equal(state[key], expected), key
    with torch.no_grad():
        x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        weight = content["conv1.0.weight"].int_repr().float() - 7
        plain = torch.nn.functional.conv2d(x, weight * 0.03, stride=2, padding=1)
        bias = content["conv1.0.bias"][:, None, None]
        stem = network.get_submodule("conv1")
        assert torch.allclose(stem[1](stem[0](x)), plain + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_network_of_torchvision_answers_as_before(tmp_path: Path) -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch cannot quantize for this processor")
    torch.manual_seed(0)
    network = quantized.resnet18(weights=None, quantize=False).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    x = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = network(x)
        network.fuse_model(is_qat=False)
        network.qconfig = torch.ao.quantization.QConfig(
            activation=torch.ao.quantization.MinMaxObserver,
            weight=torch.ao.quantization.default_per_channel_weight_observer,
        )
        prepared = torch.ao.quantization.prepare(network)
        prepared(x)
        state = torch.ao.quantization.convert(prepared).state_dict()
        torch.save(state, tmp_path / "small.pth")
    import_file(tmp_path / "small.pth", "torch-quantized", "resnet18.tv_in1k", tmp_path / "out")
    loaded = vqzoo.load(tmp_path / "out")
    with torch.no_grad():
        assert (loaded(x) - expected).abs().max() <= 0.01 * expected.abs().max()
    for key, tensor in loaded.state_dict().items():
        if tensor.dim() == 4:
            assert torch.equal(tensor, state[key].dequantize())


def no_pair(content: Fields) -> None:
    content["fc._packed_params._packed_params"] = torch.zeros(3)


def floats_packed(content: Fields) -> None:
    content["fc._packed_params._packed_params"] = (torch.zeros(1000, 96), None)


def another_axis(content: Fields) -> None:
    weight = network_state()["conv1.0.weight"]
    content["conv1.0.weight"] = rows(weight, axis=1)


def wide(content: Fields) -> None:
    content["conv1.0.weight"] = rows(network_state()["conv1.0.weight"], torch.qint32)


def far_zero(content: Fields) -> None:
    weight = network_state()["conv1.0.weight"]
    content["conv1.0.weight"] = torch._empty_per_channel_affine_quantized(
        weight.shape,
        scales=torch.ones(len(weight)),
        zero_points=torch.full((len(weight),), 2**40),
        axis=0,
        dtype=torch.qint8,
    )


def other_shape(content: Fields) -> None:
    content["conv1.0.weight"] = rows(torch.ones(3, 3))


def other_layer(content: Fields) -> None:
    content["other.weight"] = rows(torch.ones(3, 3))


def other_tensor(content: Fields) -> None:
    content["other.bias"] = torch.ones(3)


def text(content: Fields) -> None:
    content["version"] = "1"


def plain(content: Fields) -> None:
    content.clear()
    content |= network_state()


def infinite(content: Fields) -> None:
    weight = network_state()["conv1.0.weight"]
    content["conv1.0.weight"] = torch.quantize_per_tensor(weight, float("inf"), 0, torch.qint8)


BAD: dict[str, tuple[Callable[[Fields], None], str]] = {
    "no pair": (no_pair, "is no pair of a weight and a bias"),
    "floats packed": (floats_packed, r"fc\.weight is no quantized tensor"),
    "another axis": (another_axis, "scales of the kind torch.per_channel_affine"),
    "32 bits": (wide, "is torch.qint32, not one of 8 bits"),
    "a far zero point": (far_zero, "zero points that are no bytes"),
    "another shape": (other_shape, r"has the shape \(3, 3\), the network's is"),
    "another layer": (other_layer, "other.weight is quantized, and the network has no such"),
    "another tensor": (other_tensor, "has other.bias, which the network does not"),
    "a text": (text, "version is a str, not a tensor"),
    "nothing quantized": (plain, "has no quantized weight"),
    "infinite": (infinite, "NaN or infinite|not finite|infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    content = contents()
    change(content)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.pth", "torch-quantized", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)
