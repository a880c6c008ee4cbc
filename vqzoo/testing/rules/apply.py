"""Rules for `apply`: a network that runs from its codes computes the same as a decoded one."""

from collections.abc import Callable

import torch
from torch import Tensor

from vqzoo.compression.decode import apply, decode, reconstruct, trainable
from vqzoo.compression.products.prepared import Prepared, prepare
from vqzoo.numerics.decoding.panel_product import transposed
from vqzoo.plugin.code import MethodCode
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, gaussian
from vqzoo.testing.subject import Subject

TOLERANCE = 1e-4


def apply_equals_decode_then_matmul(subject: Subject) -> None:
    """`apply` multiplies x (..., n) by the decoded matrix, and so do `multiply` and
    `multiply_by_columns` unless they return None. The result is float32, (..., m), and differs from
    x·Wᵀ by at most 1e-4 of the largest |x|·|W|ᵀ, for any number of leading dimensions, including
    none. None of them modifies x or params."""
    for case in (*SHAPES, REFERENCE):
        m, n = case.matrix_shape
        for text, options in subject.variants(case):
            compressed = subject.compress(gaussian(case), options, case)
            if compressed is None:
                continue
            for leading in ((), (5,), (2, 3), (0,)):
                x = _inputs(*leading, n)
                what = f"{case.name}, {text}, x of shape {tuple(x.shape)}"
                _check_product(subject, *compressed, x, m, what)


def apply_is_differentiable(subject: Subject) -> None:
    """`apply` gives x, and every tensor of `trainable`, the same gradient as `reconstruct` followed
    by a matrix product: fine-tuning differentiates through it."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        start = {**trainable(compressed, subject.plugins), "x": _inputs(5, 48)}
        probe = _inputs(5, 64)

        def by_apply(leaves: dict[str, Tensor], compressed: MethodCode = compressed) -> Tensor:
            return apply(compressed, leaves, subject.plugins, leaves["x"])

        def by_matrix(leaves: dict[str, Tensor], compressed: MethodCode = compressed) -> Tensor:
            return leaves["x"] @ reconstruct(compressed, leaves, subject.plugins).T

        gradients = _gradients(by_apply, start, probe)
        for name, expected in _gradients(by_matrix, start, probe).items():
            difference = float((gradients[name] - expected).norm())
            limit = 10 * TOLERANCE * float(expected.norm()) + 1e-6
            require(
                difference <= limit, f"{text}: the gradient of {name} is off by {difference:.3g}"
            )


def _check_product(
    subject: Subject, compressed: MethodCode, matrix: Tensor, x: Tensor, m: int, what: str
) -> None:
    for name in ("apply", "multiply", "multiply_by_columns"):
        params = trainable(compressed, subject.plugins)
        before = {part: tensor.clone() for part, tensor in {**params, "x": x}.items()}
        with torch.no_grad():
            if name == "apply":
                product: Tensor | None = apply(compressed, params, subject.plugins, x)
            elif name == "multiply":
                product = prepare(compressed, subject.plugins, params).multiply(x)
            else:
                product = _by_columns(prepare(compressed, subject.plugins, params), x)
        for part, tensor in {**params, "x": x}.items():
            require(torch.equal(tensor, before[part]), f"{what}: {name} modified {part}")
        if product is not None:
            _check_values(product, matrix, x, m, what, name)
        require(
            torch.equal(decode(compressed, subject.plugins), matrix),
            f"{what}: after {name}, the code decodes to another matrix",
        )


def _by_columns(prepared: Prepared, x: Tensor) -> Tensor | None:
    """What `multiply_by_columns` gives for vectors x (..., n), (..., m)."""
    if not x.numel():
        return None
    product = prepared.multiply_by_columns(transposed(x.reshape(-1, x.shape[-1])))
    return None if product is None else product.T.reshape(*x.shape[:-1], len(product))


def _check_values(product: Tensor, matrix: Tensor, x: Tensor, m: int, what: str, name: str) -> None:
    shape = (*x.shape[:-1], m)
    require(
        tuple(product.shape) == shape and product.dtype == torch.float32,
        f"{what}: {name} returned {tuple(product.shape)} {product.dtype}, not {shape} float32",
    )
    if not product.numel():
        return
    exact = x.double() @ matrix.double().T
    limit = TOLERANCE * float((x.abs().double() @ matrix.abs().double().T).max())
    difference = float((product.double() - exact).abs().max())
    require(difference <= limit, f"{what}: off by {difference:.3g}, more than {limit:.3g}")


def _gradients(
    product: Callable[[dict[str, Tensor]], Tensor], start: dict[str, Tensor], probe: Tensor
) -> dict[str, Tensor]:
    leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in start.items()}
    (product(leaves) * probe).sum().backward()
    return {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }


def _inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))
