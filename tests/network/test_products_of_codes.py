"""Linear layers multiply by their codes, and the dense weight is never made."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.products import tiles
from vqzoo.numerics.decoding import product as tables
from vqzoo.numerics.decoding.product import multiply_residual
from vqzoo.numerics.kernels.products.aligned import aligned_zeros
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin.manager import installed_plugins

# s, m, k, d, books
SIZES = [
    (7, 24, 5, 3, 7),
    (9, 100, 10, 4, 1),
    (33, 600, 256, 4, 33),
    (5, 520, 200, 4, 5),
    (6, 520, 200, 8, 1),
    (5, 9, 16, 2, 1),
    (5, 700, 300, 2, 1),
    (5, 700, 3000, 2, 1),
    (70, 1000, 256, 4, 1),
    (50, 1000, 1100, 6, 1),
    (9, 43, 200, 16, 1),
    (1, 40, 4, 1, 1),
]


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of these tests are small, but stand for large ones, which are not kept."""
    monkeypatch.setattr(tiles, "MOST_KEPT", 0)


@pytest.mark.parametrize("in_registers", [True, False])
@pytest.mark.parametrize("inputs", [1, 2, 8, 17, 65])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_agree_with_the_looked_up_matrix(
    sizes: tuple[int, int, int, int, int],
    inputs: int,
    in_registers: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "HAS_BYTE_TABLES", HAS_BYTE_TABLES and in_registers)
    s, m, k, d, books = sizes
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, k, (s, m), generator=random)
    codebooks = torch.randn(books, k, d, generator=random)
    x = torch.randn(inputs, s * d, generator=random)
    blocks = [codebooks[b if books > 1 else 0][codes[b]] for b in range(s)]
    expected = x.double() @ torch.cat(blocks, 1).double().T
    narrow = codes.to(torch.uint8 if k <= 256 else torch.int32)
    product = multiply_residual(x, narrow[:, None], codebooks[:, None])
    small = m * s * d <= 1 << 18
    many = k * d > 8 * m
    if inputs > (8 if small else 64) or (many and (inputs > 1 or books > 1)):
        assert product is None  # decoding is faster
        return
    assert product is not None
    assert product.dtype == torch.float32
    assert (product - expected).abs().max() <= 1e-5 * expected.abs().max()
    with use_threads(2):
        again = multiply_residual(x, narrow[:, None], codebooks[:, None])
        assert again is not None
        assert torch.equal(again, product)


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("k", [40, 256, 700])
@pytest.mark.parametrize("inputs", [1, 3])
def test_products_of_sums_agree_with_the_looked_up_matrix(stages: int, k: int, inputs: int) -> None:
    s, m, d = 11, 50, 5
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, k, (s, stages, m), generator=random)
    codebooks = torch.randn(1, stages, k, d, generator=random)
    x = torch.randn(inputs, s * d, generator=random)
    blocks = [sum(codebooks[0, t][codes[b, t]] for t in range(stages)) for b in range(s)]
    expected = x.double() @ torch.cat(blocks, 1).double().T
    held = codes.to(torch.uint8) if k <= 256 else codes.to(torch.int16)
    product = multiply_residual(x, held, codebooks, 8 if k <= 256 else 16)
    if k * d > 8 * m and inputs > 1:
        assert product is None
        return
    assert (product - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_memory_of_kernels_begins_with_a_cache_line() -> None:
    held = [aligned_zeros(count) for count in (1, 3, 40, 4096, 1 << 18)]
    assert [len(memory) for memory in held] == [1, 3, 40, 4096, 1 << 18]
    assert not any(memory.ctypes.data % 64 or memory.any() for memory in held)


def test_shapes_that_do_not_fit_are_refused() -> None:
    codes, codebooks = torch.zeros(3, 1, 8, dtype=torch.uint8), torch.zeros(2, 1, 4, 2)
    with pytest.raises(ValueError, match="do not fit"):
        multiply_residual(torch.zeros(1, 6), codes, codebooks)
    with pytest.raises(ValueError, match="do not fit"):
        multiply_residual(torch.zeros(1, 5), codes, codebooks[:1])


def coded(**options: Any) -> tuple[nn.Module, CodedLayer]:
    torch.manual_seed(0)
    small = vqzoo.compress(nn.Linear(66, 64), "pq", layers="all", **options)
    decoded = copy.deepcopy(small.module)
    layer = run_from_code(small.module, "", small.layers[0].compressed, installed_plugins())
    assert isinstance(layer, CodedLayer)
    return decoded, layer


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> Tensor:
        raise AssertionError("the whole weight was decoded")

    method = type(installed_plugins().method("pq").item)
    monkeypatch.setattr(method, "decode", decode)
    monkeypatch.setattr(method, "reconstruct", decode)


@pytest.mark.parametrize("shape", [(66,), (1, 66), (5, 66), (2, 3, 66), (0, 66)], ids=str)
@pytest.mark.parametrize("codebook", ["layer", "block"])
@pytest.mark.parametrize("scale", ["row", "none"])
@pytest.mark.parametrize("k", [16, 30])
def test_a_layer_multiplies_without_its_weight(
    shape: tuple[int, ...], codebook: str, scale: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, layer = coded(d=4, k=k, codebook=codebook, scale=scale)  # 66 = 16 blocks and a tail
    refuse_to_decode(monkeypatch)
    x = torch.randn(shape)
    expected = decoded(x)
    product = layer(x)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        assert torch.equal(layer(x), product)


@pytest.mark.parametrize("shape", [(66,), (5, 66), (2, 3, 66), (300, 66)], ids=str)
@pytest.mark.parametrize("codebook", ["layer", "block"])
@pytest.mark.parametrize("scale", ["row", "none"])
@pytest.mark.parametrize("k", [16, 30])
def test_rows_that_are_cut_multiply_without_the_weight(
    shape: tuple[int, ...], codebook: str, scale: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"axis": "rows", "codebook": codebook, "scale": scale}
    decoded, layer = coded(d=5, k=k, **options)  # 64 = 12 blocks and a tail
    refuse_to_decode(monkeypatch)
    x = torch.randn(shape)
    product = layer(x)
    torch.testing.assert_close(product, decoded(x), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        assert torch.equal(layer(x), product)


def test_what_needs_torch_still_has_it() -> None:
    """Gradients, tangents, `vmap`, autocast and traces see the decoded weight."""
    decoded, layer = coded(d=4, k=16)
    x = torch.randn(3, 66)
    for run in (layer, decoded):
        run.zero_grad()
    first, second = (x.clone().requires_grad_() for _ in range(2))
    layer(first).sum().backward()
    decoded(second).sum().backward()
    assert first.grad is not None
    assert torch.equal(first.grad, second.grad)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangents = [forward_ad.unpack_dual(run(dual)).tangent for run in (layer, decoded)]
        torch.testing.assert_close(*tangents)
    torch.testing.assert_close(torch.func.vmap(layer)(x), decoded(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    traced = torch.jit.trace(layer, x)
    other = torch.randn(3, 66)
    torch.testing.assert_close(traced(other), decoded(other))


def test_trained_codebooks_are_used_and_inputs_of_another_width_refused() -> None:
    decoded, layer = coded(d=4, k=16)
    x = torch.randn(2, 66)
    with torch.no_grad():
        layer.params["/codebook"].mul_(2)
        layer.params["/codebook_tail"].mul_(2)
    torch.testing.assert_close(layer(x) - layer.bias, 2 * (decoded(x) - decoded.bias))
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 65))


@pytest.mark.parametrize("method", ["km", "pq", "rtn", "svd"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(66, 64), lambda: nn.Conv1d(66, 64, 1)])
def test_what_changes_between_passes_counts(method: str, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    small = vqzoo.compress(make(), method, layers="all")
    layer = run_from_code(small.module, "", small.layers[0].compressed, installed_plugins())
    assert isinstance(layer, CodedLayer)
    x = torch.randn(66) if isinstance(layer, nn.Linear) else torch.randn(66, 3)

    def check() -> None:
        dense = copy.deepcopy(layer).weight.double()
        expected = dense.reshape(64, 66) @ x.double() + layer.bias.view(-1, *[1] * (x.dim() - 1))
        with torch.inference_mode():
            torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-5)

    check()
    name = next(iter(layer.params))
    layer.params[name].data.mul_(3)
    check()
    layer.params[name].data = layer.params[name].data * 2
    check()
    layer.params[name] = nn.Parameter(layer.params[name] * 2, requires_grad=False)
    check()
    layer.double().float()
    check()
    codes = layer.codes
    layer.make_params()
    layer.change_codes(codes)
    check()
    for _ in range(2):  # copies and pickles leave behind what passes have in common
        layer = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
        check()
