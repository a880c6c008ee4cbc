"""Layers that run from codes decode a few rows of their weight at a time."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.products import convolutions, tiles
from vqzoo.plugin import Code
from vqzoo.plugin.manager import installed_plugins

METHODS: dict[str, dict[str, Any]] = {
    "km": {"k": 4},
    "km wide": {"k": 300},
    "pq": {"k": 4, "d": 2},
    "pq rows": {"k": 4, "d": 3, "axis": "rows", "codebook": "block"},
    "rq": {"k": 4, "d": 2},
    "binary": {},
    "rtn": {"format": "int4", "per": "group", "group": 5},
    "rtn tensor": {"format": "int8", "per": "tensor"},
    "rtn half": {"format": "fp16"},
    "ecq": {"price": 1e-3},
    "ecq cosine": {"price": 1e-3, "transform": "cosine"},
    "ecq plain": {"price": 1e-3, "trellis": False},
    "svd": {"rank": 3},
    "diba": {"k": 8},
    "prune": {"density": 0.02},
    "deep-compression": {"bits": 2},
}
MOST_ROWS = {"ecq": 128, "ecq cosine": 128, "prune": 38, "deep-compression": 38}  # others: 3


def pair(layer: nn.Module, method: str) -> tuple[nn.Module, CodedLayer]:
    """A layer with decoded weights, and the same layer running from its code."""
    small = vqzoo.compress(layer, method.split()[0], layers="all", **METHODS[method])
    decoded = copy.deepcopy(small.module)
    coded = run_from_code(small.module, "", small.layers[0].compressed, installed_plugins())
    assert isinstance(coded, CodedLayer)
    return decoded, coded


@pytest.fixture
def most_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most rows that were decoded at a time; tiles are of 64 weights, and no matrix is kept."""
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "MOST_KEPT", 0)
    monkeypatch.setattr(convolutions, "TILE", 64)
    most = [0]
    for method in {name.split()[0] for name in METHODS}:
        kind = type(installed_plugins().method(method).item)

        def decode(self: Any, code: Code, *rest: Any, before: Any = kind.decode) -> Tensor:
            most[0] = max(most[0], code.shape[0])
            matrix: Tensor = before(self, code, *rest)
            return matrix

        monkeypatch.setattr(kind, "decode", decode)
    return most


def assert_close(first: Tensor, second: Tensor, relative: float = 1e-5) -> None:
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    largest = second.abs().max() if second.numel() else 0
    assert ((first - second).abs() <= relative * largest).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(33,), (2, 33), (0, 33), (5, 9, 33)], ids=str)
def test_linear_layers(method: str, shape: tuple[int, ...], most_rows: list[int]) -> None:
    torch.manual_seed(0)
    decoded, coded = pair(nn.Linear(33, 300), method)
    most_rows[0] = 0
    x = torch.randn(shape)
    assert_close(coded(x), decoded(x))
    assert most_rows[0] <= MOST_ROWS.get(method, 3)
    with torch.inference_mode():
        assert_close(coded(x), decoded(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_other_dtypes(method: str, dtype: torch.dtype, most_rows: list[int]) -> None:
    torch.manual_seed(0)
    for layer, shape in ((nn.Linear(33, 40), (4, 33)), (nn.Conv2d(6, 10, 3), (2, 6, 5, 5))):
        decoded, coded = (module.to(dtype) for module in pair(layer, method))
        x = torch.randn(shape).to(dtype)
        assert_close(coded(x), decoded(x), 1e-5 if dtype == torch.float64 else 2**-7)


@st.composite
def convolution_cases(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution, and an input."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 9))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = draw(st.integers(1, 2))
    stride = draw(st.integers(1, 3))
    padding: Any = draw(st.sampled_from([0, 1, 2, "same", "valid"]))
    if padding == "same":
        stride = 1
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "circular", "replicate"]))
    bias = draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = kind(inner, outer, kernel, stride, padding, dilation, groups, bias, mode)
    x = torch.randn(draw(st.integers(1, 2)), inner, *[draw(st.integers(5, 7))] * rank)
    return layer, x if draw(st.booleans()) else x[0]


@settings(max_examples=60, deadline=None)
@given(convolution_cases(), st.sampled_from(["km", "km wide", "pq rows", "rtn", "svd"]))
def test_convolutions(case: tuple[nn.Module, Tensor], method: str) -> None:
    layer, x = case
    if min(layer.weight.shape[0], layer.weight[0].numel()) < 5:
        return
    decoded, coded = pair(layer, method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 64)
        patch.setattr(tiles, "MOST_KEPT", 0)
        patch.setattr(convolutions, "TILE", 64)
        assert_close(coded(x), decoded(x))


def test_a_convolution_never_has_its_whole_weight(most_rows: list[int]) -> None:
    torch.manual_seed(0)
    for groups in (1, 2, 8):
        decoded, coded = pair(nn.Conv2d(16, 48, 3, groups=groups), "km")
        most_rows[0] = 0
        x = torch.randn(2, 16, 6, 6)
        assert_close(coded(x), decoded(x))
        assert (groups > 1) <= most_rows[0] <= 6


def test_small_matrices_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kind = type(installed_plugins().method("km").item)
    calls, before = [0], kind.decode

    def decode(self: Any, *arguments: Any) -> Tensor:
        calls[0] += 1
        return before(self, *arguments)

    monkeypatch.setattr(kind, "decode", decode)
    for layer, shape in ((nn.Linear(64, 64), (3, 64)), (nn.Conv2d(8, 16, 3), (1, 8, 9, 9))):
        decoded, coded = pair(layer, "km")
        x = torch.randn(shape)
        calls[0] = 0
        for _ in range(3):
            assert torch.equal(coded(x), decoded(x))
        assert calls[0] == 1
        coded.params["/scale"].data.mul_(2)  # its version does not change
        bias = decoded.bias.reshape(-1, *[1] * (coded(x).dim() - 2))
        assert_close(coded(x) - bias, 2 * (decoded(x) - bias))
        assert calls[0] == 2


def test_inputs_that_do_not_fit_are_refused_as_by_the_layer() -> None:
    for layer, shape in ((nn.Conv2d(6, 8, 3, groups=2), (2, 5, 7, 7)), (nn.Linear(8, 8), (2, 9))):
        decoded, coded = pair(layer, "km")
        for run in (decoded, coded):
            with pytest.raises(RuntimeError):
                run(torch.randn(shape))


@pytest.mark.parametrize("method", METHODS)
def test_transforms_of_functions(method: str) -> None:
    """`jvp`, `vjp` and `vmap` see the decoded weight, whatever the method decodes with."""
    torch.manual_seed(0)
    decoded, coded = pair(nn.Linear(33, 16), method)
    x, tangent = torch.randn(4, 33), torch.randn(4, 33)
    for run in (
        lambda layer: torch.func.jvp(layer, (x,), (tangent,))[1],
        lambda layer: torch.func.vjp(layer, x)[1](torch.ones(4, 16))[0],
        lambda layer: torch.func.vmap(layer)(x),
        lambda layer: torch.func.jacfwd(layer)(x[0]),
        lambda layer: torch.func.jvp(lambda scale: scale * layer(x), (tangent[0, 0],), (x[0, 0],))[
            1
        ],
    ):
        torch.testing.assert_close(run(coded), run(decoded), rtol=1e-4, atol=1e-5)


def test_tangents_of_codebooks() -> None:
    torch.manual_seed(0)
    _, coded = pair(nn.Linear(32, 16), "pq")
    x, book = torch.randn(4, 32), coded.params["/codebook"].detach()

    def answer(values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(coded, {"params./codebook": values}, (x,))
        return result

    tangent = torch.randn_like(book)
    _, found = torch.func.jvp(answer, (book,), (tangent,))
    step = 1e-2
    expected = (answer(book + step * tangent) - answer(book - step * tangent)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
