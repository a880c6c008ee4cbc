"""A layer that runs from its code passes for the layer that it replaces."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from timm.layers.linear import Linear as CastingLinear
from torch import Tensor, nn
from torch.nn import functional as F

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.view import is_parameter
from vqzoo.errors import VqzooError
from vqzoo.plugin.manager import installed_plugins

OPTIONS: dict[str, dict[str, int]] = {"km": {"k": 4}, "svd": {"rank": 2}}


class Doubled(nn.Linear):
    """A layer with a forward pass and state of its own."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.factor = 2.0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


LAYERS = {
    "Linear": (lambda: nn.Linear(32, 16), (3, 32)),
    "Linear without bias": (lambda: nn.Linear(32, 16, bias=False), (3, 5, 32)),
    "Linear of timm": (lambda: CastingLinear(32, 16), (3, 32)),
    "Linear with more": (lambda: Doubled(32, 16), (3, 32)),
    "Conv1d": (lambda: nn.Conv1d(8, 16, 5, padding=2, groups=2), (2, 8, 12)),
    "Conv2d": (lambda: nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"), (2, 8, 9, 9)),
    "Conv3d": (lambda: nn.Conv3d(4, 8, 3), (2, 4, 5, 5, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 16, 4, stride=2, groups=2), (2, 8, 6)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 16, 3, stride=2), (2, 8, 5, 5)),
    "Conv2dSame": (lambda: Conv2dSame(8, 16, 3, stride=2), (2, 8, 9, 9)),
    "StdConv2d": (lambda: StdConv2d(8, 16, 3), (2, 8, 9, 9)),
    "ScaledStdConv2d": (lambda: ScaledStdConv2d(8, 16, 3), (2, 8, 9, 9)),
}  # fmt: skip


def pair(layer: nn.Module, method: str = "km") -> tuple[nn.Module, CodedLayer]:
    """A layer with decoded weights, and the same layer running from its code."""
    small = vqzoo.compress(layer, method, layers="all", **OPTIONS[method])
    decoded = copy.deepcopy(small.module)
    coded = run_from_code(small.module, "", small.layers[0].compressed, installed_plugins())
    assert coded is small.module
    assert isinstance(coded, CodedLayer)
    return decoded, coded


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_layer_that_it_replaces(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    decoded, coded = pair(make())
    assert isinstance(coded, type(decoded))
    public = {key: value for key, value in vars(decoded).items() if key[0] != "_"}
    assert {key: value for key, value in vars(coded).items() if key[0] != "_"} == public
    assert torch.equal(coded.weight, decoded.weight)
    assert isinstance(coded.weight, nn.Parameter)
    assert decoded.extra_repr() in coded.extra_repr()
    x = torch.randn(shape)
    if name in ("Linear", "Linear of timm"):  # sums in another order
        torch.testing.assert_close(coded(x), decoded(x), rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(coded(x), decoded(x))
    assert "weight" not in dict(coded.named_parameters())


def test_a_network_may_read_the_weight_itself() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24, bias=False)
            self.q_bias = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            x = x.to(self.qkv.weight.device, self.qkv.weight.dtype)
            bias = torch.cat([self.q_bias, self.q_bias.new_zeros(16)])
            return F.linear(x, weight=self.qkv.weight, bias=bias)

    torch.manual_seed(0)
    small = vqzoo.compress(Fused(), "km", k=4)
    x = torch.randn(3, 8)
    expected = small(x)
    run_from_code(small.module, "qkv", small.layers[0].compressed, installed_plugins())
    assert torch.equal(small(x), expected)


@pytest.mark.parametrize("make", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_look_up_decoded_rows(make: type[nn.Module]) -> None:
    decoded, coded = pair(make(20, 16, padding_idx=3))
    assert isinstance(coded, make)
    words = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(coded(words), decoded(words))


@pytest.mark.parametrize("grad", [False, True], ids=["fused kernel", "layer by layer"])
def test_torchs_transformer_reads_its_layers_weights(grad: bool) -> None:
    torch.manual_seed(0)
    small = vqzoo.compress(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), "km", k=4)
    assert {layer.layer.name for layer in small.layers} >= {"self_attn.out_proj", "linear1"}
    x = torch.randn(2, 5, 16, requires_grad=grad)
    expected = small(x)
    for layer in small.layers:
        if not is_parameter(layer.layer.name):  # self_attn.in_proj_weight stays decoded
            run_from_code(small.module, layer.layer.name, layer.compressed, installed_plugins())
    assert torch.equal(small(x), expected)


def test_a_module_under_two_names_is_coded_under_both() -> None:
    shared = nn.Linear(8, 8)
    small = vqzoo.compress(nn.Sequential(shared, nn.ReLU(), shared), "km", k=4)
    x = torch.randn(3, 8)
    expected = small(x)
    run_from_code(small.module, "0", small.layers[0].compressed, installed_plugins())
    assert isinstance(small.module[2], CodedLayer)
    torch.testing.assert_close(small(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["km", "svd"])
def test_hooks_run_whenever_they_were_registered(method: str) -> None:
    layer = nn.Linear(32, 16)
    calls: list[str] = []
    layer.register_forward_pre_hook(lambda *_: calls.append("before, early"))
    _, coded = pair(layer, method)
    coded.register_forward_hook(lambda *_: calls.append("after, late"))
    coded(torch.randn(2, 32))
    assert calls == ["before, early", "after, late"]


def test_the_state_dict_is_that_of_the_dense_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    small = vqzoo.compress(model, "pq", k=4, d=2)
    dense = copy.deepcopy(small.module)
    for layer in small.layers:
        run_from_code(small.module, layer.layer.name, layer.compressed, installed_plugins())
    state = small.module.state_dict()
    assert list(state) == list(dense.state_dict())
    assert all(torch.equal(value, dense.state_dict()[key]) for key, value in state.items())
    model.load_state_dict(state)
    state["0.bias"] += 1
    small.module.load_state_dict(state)
    assert torch.equal(small.module[0].bias, dense[0].bias + 1)


def test_another_weight_is_refused_and_a_missing_one_is_named() -> None:
    _, coded = pair(nn.Linear(16, 8))
    state = coded.state_dict()
    with pytest.raises(RuntimeError, match=r"weight differs from the weight .* mode='decoded'"):
        coded.load_state_dict(state | {"weight": state["weight"] + 1})
    with pytest.raises(RuntimeError, match=r'Missing key.*"weight"'):
        coded.load_state_dict({"bias": state["bias"]})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"extra"'):
        coded.load_state_dict(state | {"extra": state["bias"]})


@pytest.mark.parametrize("method", ["km", "svd"])
def test_a_weight_put_in_its_place_is_used(method: str) -> None:
    decoded, coded = pair(nn.Linear(32, 16), method)
    x, other = torch.randn(3, 32), torch.randn(16, 32)
    expected = F.linear(x, other, decoded.bias)
    assert torch.equal(torch.func.functional_call(coded, {"weight": other}, (x,)), expected)
    assert torch.allclose(coded(x), decoded(x), atol=1e-5)
    coded.weight = nn.Parameter(other)
    assert torch.equal(coded(x), expected)


def test_symbolic_tracing_takes_it_for_a_leaf() -> None:
    small = vqzoo.compress(nn.Sequential(nn.Linear(16, 8), nn.ReLU()), "km", k=4)
    run_from_code(small.module, "0", small.layers[0].compressed, installed_plugins())
    traced = torch.fx.symbolic_trace(small.module)
    assert [node.op for node in traced.graph.nodes] == [
        "placeholder", "call_module", "call_module", "output",
    ]  # fmt: skip
    x = torch.randn(2, 16)
    assert torch.equal(traced(x), small.module(x))


def test_a_layer_without_a_weight_is_refused() -> None:
    _, coded = pair(nn.Linear(16, 8))
    with pytest.raises(ValueError, match="has no weight"):
        run_from_code(coded, "", coded.compressed, installed_plugins())


def test_an_input_of_another_width_is_refused_as_by_the_layer() -> None:
    _, coded = pair(nn.Linear(32, 16), "svd")
    with pytest.raises((RuntimeError, VqzooError), match="inputs of 32 values, not of 8"):
        coded(torch.randn(2, 8))
