"""Codes of few bits share bytes while a network runs, and are multiplied by as they are."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.compression.products.packed import packed, unpacked
from vqzoo.numerics.decoding import decode, scalar_product
from vqzoo.numerics.decoding.decode import decode_scalar
from vqzoo.numerics.decoding.packed import decode_packed, pack, unpack, width_of
from vqzoo.numerics.decoding.product import multiply_residual
from vqzoo.numerics.decoding.scalar_product import multiply_scalars
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES, byte_planes, is_exact
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin.formats.packed_indices import PackedIndices
from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing.codes import same_code

METHODS: dict[str, dict[str, Any]] = {
    "km": {"k": 16},
    "km 2": {"k": 2},
    "km 100": {"k": 100},
    "km 300": {"k": 300},
    "pq": {"k": 16, "d": 4},
    "pq block": {"k": 3, "d": 2, "codebook": "block"},
    "pq rows": {"k": 16, "d": 4, "axis": "rows"},
    "rq": {"k": 16, "d": 4, "stages": 3},
    "rq block": {"k": 4, "d": 4, "codebook": "block"},
    "binary": {},
    "binary tensor": {"scale": "tensor"},
    "binary none": {"scale": "none"},
    "rtn": {"format": "int4"},
    "rtn tensor": {"format": "int2", "per": "tensor"},
    "rtn int8": {"format": "int8"},
    "rtn fp16": {"format": "fp16"},
    "rtn group": {"format": "int4", "per": "group", "group": 32},
    "ecq": {"price": 0.3},
    "ecq plain": {"price": 1e-3, "trellis": False},
    "svd": {"rank": 4},
    "diba": {"k": 8},
    "deep-compression": {"bits": 3},
}


def layers(method: str, layer: nn.Module | None = None) -> tuple[nn.Module, CodedLayer]:
    """A layer with decoded weights, and the same layer running from packed codes."""
    torch.manual_seed(0)
    layer = layer or nn.Linear(90, 600)
    small = vqzoo.compress(layer, method.split()[0], layers="all", **METHODS[method])
    decoded, plugins = copy.deepcopy(small.module), installed_plugins()
    code = small.layers[0].compressed
    coded = run_from_code(small.module, "", packed(code, plugins), plugins)
    assert isinstance(coded, CodedLayer)
    assert same_code(unpacked(packed(code, plugins)), code)
    return decoded, coded


def assert_close(first: Tensor, second: Tensor) -> None:
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    largest = float(second.abs().max()) if second.numel() else 0.0
    assert ((first - second).abs() <= 1e-5 * largest).all()


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.sampled_from([2, 3, 4, 5, 16, 257, 65536]),
    st.integers(0, 2),
)
def test_packing_is_lossless(shape: list[int], k: int, axis: int) -> None:
    width, axis = width_of(k), axis % len(shape)
    codes = torch.randint(0, k, shape, generator=torch.Generator().manual_seed(0))
    bytes_ = pack(codes, width, axis)
    assert torch.equal(unpack(bytes_, width, axis, shape[axis]).long(), codes)
    if width < 8 and axis < len(shape) - 1:
        lines = -(-shape[axis] * width // 8)
        assert bytes_.numel() == codes.numel() // shape[axis] * lines


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 400),
    st.sampled_from([1, 2, 3, 4, 7, 16, 17, 200, 256]),
    st.integers(0, 9),
    st.booleans(),
)
def test_products_and_decoding_of_scalars(m: int, n: int, k: int, inputs: int, grid: bool) -> None:
    random = torch.Generator().manual_seed(m * n)
    codes = torch.randint(0, k, (m, n), generator=random).to(torch.uint8)
    zero = k // 2 if grid else None
    table = torch.arange(k).float() - k // 2 if grid else torch.randn(k, generator=random)
    x, width = torch.randn(inputs, n, generator=random), width_of(k)
    matrix = table[codes.long()]
    held = codes if width == 8 else pack(codes, width, 1)
    product = multiply_scalars(x, held, width, table, zero)
    limit = x.double().abs() @ matrix.double().abs().T
    assert ((product - x.double() @ matrix.double().T).abs() <= 1e-5 * limit).all()
    with use_threads(2):
        assert torch.equal(multiply_scalars(x, held, width, table, zero), product)
    if width < 8:
        assert torch.equal(decode_packed(held, width, table, torch.empty(m, n)), matrix)


@pytest.mark.parametrize("in_registers", [True, False])
@pytest.mark.parametrize("k", [2, 16, 100, 256])
@pytest.mark.parametrize("grid", [True, False])
def test_products_and_decoding_of_long_rows(
    k: int, grid: bool, in_registers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows longer than what the caches hold of inputs, with and without look-ups of bytes."""
    for module in (scalar_product, decode):
        monkeypatch.setattr(module, "HAS_BYTE_TABLES", HAS_BYTE_TABLES and in_registers)
    m, n, zero = 7, 3501, k // 2 if grid else None
    random = torch.Generator().manual_seed(k)
    codes = torch.randint(0, k, (m, n), generator=random).to(torch.uint8)
    table = torch.arange(k).float() - k // 2 if grid else torch.randn(k, generator=random)
    width, x = width_of(k), torch.randn(5, n, generator=random)
    matrix = table[codes.long()]
    held = codes if width == 8 else pack(codes, width, 1)
    limit = x.double().abs() @ matrix.double().abs().T
    for inputs in (1, 5):
        product = multiply_scalars(x[:inputs], held, width, table, zero)
        expected = x[:inputs].double() @ matrix.double().T
        assert ((product - expected).abs() <= 1e-5 * limit[:inputs]).all()
    half = table.half()
    assert torch.equal(decode_scalar(codes, half, torch.empty(m, n)), half.float()[codes.long()])
    assert torch.equal(decode_scalar(codes, table, torch.empty(m, n)), matrix)
    if k < 256:
        codes[-1, -1] = k
        with pytest.raises(ValueError, match="out of range"):
            decode_scalar(codes, half, torch.empty(m, n))


@pytest.mark.parametrize("value", [1e-45, 3.4028235e38, -3.4028235e38, 1 / 3, -65504.0])
def test_tables_of_bytes_round_to_16_bits(value: float) -> None:
    table = np.array([value], np.float32)
    planes = byte_planes(table).reshape(3, 256).astype(np.uint32)
    held = (planes[0] << 8 | planes[1] << 16 | planes[2] << 24).view(np.float32)
    assert abs(held[0] - table[0]) <= 2.0**-16 * abs(table[0]) + 2.0**-140
    assert is_exact(table) == (held[0] == table[0])
    assert not held[1:].any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([2, 3, 4, 9, 16, 300]),
    st.integers(0, 8),
    st.booleans(),
)
def test_products_with_packed_blocks(
    s: int, stages: int, d: int, k: int, inputs: int, shared: bool
) -> None:
    m, width = 520, width_of(k)
    random = torch.Generator().manual_seed(s)
    codes = torch.randint(0, k, (s, stages, m), generator=random)
    books = torch.randn(1 if shared else s, stages, k, d, generator=random)
    x = torch.randn(inputs, s * d, generator=random)
    matrix = torch.cat(
        [sum(books[0 if shared else b, t][codes[b, t]] for t in range(stages)) for b in range(s)], 1
    )
    product = multiply_residual(x, pack(codes, width, 0), books, width)
    assert product is not None
    expected = x.double() @ matrix.double().T
    assert product.shape == expected.shape
    assert (
        ((product - expected).abs() <= 1e-5 * expected.abs().max().clamp(min=1)).all()
        if inputs
        else True
    )


@pytest.mark.parametrize("method", METHODS)
def test_layers_run_from_packed_codes(method: str) -> None:
    decoded, coded = layers(method)
    for shape in ((90,), (1, 90), (3, 90), (2, 4, 90), (20, 90), (50, 90), (0, 90)):
        x = torch.randn(shape)
        assert_close(coded(x), decoded(x))
    assert_close(coded.weight, decoded.weight)
    again = pickle.loads(pickle.dumps(coded))
    assert torch.equal(again(x), coded(x))
    x = torch.randn(3, 90, requires_grad=True)
    coded(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, decoded.weight.sum(0).expand(3, 90), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["km", "pq", "pq rows", "rq", "binary", "rtn", "rtn group"])
def test_convolutions_run_from_packed_codes(method: str) -> None:
    decoded, coded = layers(method, nn.Conv2d(10, 64, 3, stride=2, padding=1, groups=2))
    x = torch.randn(2, 10, 9, 9)
    assert_close(coded(x), decoded(x))


@pytest.mark.parametrize("method", ["km", "km 300", "pq", "rq", "binary", "rtn", "rtn fp16"])
def test_torch_exports_packed_codes(method: str) -> None:
    decoded, coded = layers(method)
    x = torch.randn(3, 90)
    program = torch.export.export(coded, (x,))
    assert_close(program.module()(x), decoded(x))


def test_as_many_floats_as_weights_are_copied_to_be_trained_alone() -> None:
    decoded, coded = layers("rtn fp16")
    x = torch.randn(3, 90)
    assert_close(coded(x), decoded(x))
    assert [name for name, _ in coded.named_parameters()] == ["bias"]
    values = coded.params["/values"]
    assert values.dtype == torch.float32
    assert torch.equal(values, decoded.weight)
    values.requires_grad_(True)
    coded(x).sum().backward()
    torch.testing.assert_close(values.grad, x.sum(0).expand(600, 90))
    with torch.no_grad():
        values.mul_(2)
    assert_close(coded(x) - coded.bias, 2 * (decoded(x) - coded.bias))


@pytest.mark.parametrize(("method", "bits"), [("km", 4), ("binary", 1), ("pq", 1)])
def test_codes_stay_packed_in_memory(method: str, bits: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 768), nn.ReLU(), nn.Linear(768, 256))
    vqzoo.save_weights(vqzoo.compress(model, method, **METHODS[method]), tmp_path / "a")
    coded = vqzoo.load_into(copy.deepcopy(model), tmp_path / "a", mode="codes")
    for layer in (coded[0], coded[2]):
        assert isinstance(layer, CodedLayer)
        part = layer._compressed.code.parts["codes"]
        assert isinstance(part, PackedIndices)
        assert 8 * part.packed.numel() == bits * layer.in_features * layer.out_features
    decoded = vqzoo.load_into(model, tmp_path / "a")
    x = torch.randn(2, 512)
    assert_close(coded(x), decoded(x))
