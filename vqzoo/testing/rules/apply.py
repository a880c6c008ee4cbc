"""A network that runs from its codes answers as one that was decoded."""

import torch
from torch import Tensor

from vqzoo.compression.decode import apply, decode, reconstruct, trainable
from vqzoo.plugin.code import MethodCode
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, gaussian
from vqzoo.testing.subject import Subject

APPLYING = 1e-4


def apply_equals_decode_then_matmul(subject: Subject) -> None:
    """`apply` multiplies x (..., n) by the decoded matrix: float32 (..., m) that differs from
    x·Wᵀ by at most 1e-4 of the largest |x|·|W|ᵀ, for any leading dimensions, none included; x and
    params are left as they were."""
    for case in (*SHAPES, REFERENCE):
        m, n = case.matrix_shape
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is None:
                continue
            for leading in ((), (5,), (2, 3), (0,)):
                x = _inputs(*leading, n)
                what = f"{case.name}, {text}, x of shape {tuple(x.shape)}"
                _check_product(subject, found[0], found[1], x, m, what)


def apply_is_differentiable(subject: Subject) -> None:
    """`apply` gives x and every tensor of `trainable` the gradients that `reconstruct` followed by
    a matrix product gives: fine-tuning runs through it."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        start = {**trainable(compressed, subject.plugins), "x": _inputs(5, 48)}
        probe = _inputs(5, 64)

        def by_apply(leaves: dict[str, Tensor], compressed: MethodCode = compressed) -> Tensor:
            return apply(compressed, leaves, subject.plugins, leaves["x"])

        def by_matrix(leaves: dict[str, Tensor], compressed: MethodCode = compressed) -> Tensor:
            return leaves["x"] @ reconstruct(compressed, leaves, subject.plugins).T

        found, expected = (_gradients(one, start, probe) for one in (by_apply, by_matrix))
        for name, gradient in expected.items():
            far = float((found[name] - gradient).norm())
            limit = 10 * APPLYING * float(gradient.norm()) + 1e-6
            require(far <= limit, f"{text}: the gradient of {name} is off by {far:.3g}")


def _check_product(
    subject: Subject, compressed: MethodCode, matrix: Tensor, x: Tensor, m: int, what: str
) -> None:
    params = trainable(compressed, subject.plugins)
    before = {name: tensor.clone() for name, tensor in {**params, "x": x}.items()}
    with torch.no_grad():
        found = apply(compressed, params, subject.plugins, x)
    shape = (*x.shape[:-1], m)
    require(
        tuple(found.shape) == shape and found.dtype == torch.float32,
        f"{what}: {tuple(found.shape)} {found.dtype}, not {shape} float32",
    )
    for name, tensor in {**params, "x": x}.items():
        require(torch.equal(tensor, before[name]), f"{what}: {name} was changed")
    if not found.numel():
        return
    exact = x.double() @ matrix.double().T
    limit = APPLYING * float((x.abs().double() @ matrix.abs().double().T).max())
    far = float((found.double() - exact).abs().max())
    require(far <= limit, f"{what}: off by {far:.3g}, more than {limit:.3g}")
    require(
        torch.equal(decode(compressed, subject.plugins), matrix),
        f"{what}: the code decodes to another matrix after it",
    )


def _gradients(product: object, start: dict[str, Tensor], probe: Tensor) -> dict[str, Tensor]:
    leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in start.items()}
    (product(leaves) * probe).sum().backward()  # type: ignore[operator]
    return {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }


def _inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))
