"""Decoding, fast or differentiable, gives one and the same matrix."""

import torch
from torch import Tensor

from vqzoo.compression.decode import decode, reconstruct, trainable
from vqzoo.plugin.code import MethodCode
from vqzoo.testing.broken import require
from vqzoo.testing.codes import code_to
from vqzoo.testing.matrices import REFERENCE, SHAPES, gaussian
from vqzoo.testing.subject import Subject

_RELATIVE = 1e-5  # a sum of float32 in another order
_GRADIENT = 0.02
_DEVICES = 0.05


def reconstruct_equals_decode(subject: Subject) -> None:
    """`reconstruct`, in plain torch, gives what the fast `decode` gives, up to the rounding of a
    float32 sum: what is fine-tuned is what will run."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is not None:
                plain = reconstruct(found[0], trainable(found[0], subject.plugins), subject.plugins)
                _close(plain, found[1], f"{case.name}, {text}: reconstruct differs from decode")


def decode_fills_out(subject: Subject) -> None:
    """Where `decode` is given `out`, a contiguous matrix that may hold anything, the result is
    written there, and is the same."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is not None:
                out = torch.full(case.matrix_shape, float("nan"))
                decode(found[0], subject.plugins, out)
                require(
                    torch.equal(out, found[1]), f"{case.name}, {text}: out holds another matrix"
                )


def decoding_leaves_the_code_alone(subject: Subject) -> None:
    """Decoding twice gives the same matrix: neither the code nor the params are written to."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        first = decode(compressed, subject.plugins)
        first_value = first.clone()
        first.add_(1)  # what a caller may do with its own
        again = decode(compressed, subject.plugins)
        require(torch.equal(first_value, again), f"{text}: the second decoding differs")


def reconstruct_is_differentiable(subject: Subject) -> None:
    """Every tensor of `trainable` gets the gradient that finite differences give: fine-tuning and
    distillation change a network through it."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        params = trainable(compressed, subject.plugins)
        for name in params:
            _check_gradient(subject, compressed, params, name, text)


def cpu_and_gpu_agree(subject: Subject) -> None:
    """Where there is a GPU: a code decodes to the same matrix there, and quantizing there errs
    as much as on the CPU, within 5%."""
    if not torch.cuda.is_available():
        return
    weight, cuda = gaussian(REFERENCE), torch.device("cuda")
    for text, options in subject.variants(REFERENCE):
        on_cpu = subject.quantize(weight, options)
        decoded = decode(on_cpu, subject.plugins)
        moved = decode(code_to(on_cpu, cuda), subject.plugins).cpu()
        _close(moved, decoded, f"{text}: the GPU decodes the same code to another matrix")
        there = decode(subject.quantize(weight.to(cuda), options), subject.plugins).cpu()
        errors = [float((weight - one).square().sum()) for one in (decoded, there)]
        require(
            abs(errors[1] - errors[0]) <= _DEVICES * errors[0] + 1e-6,
            f"{text}: squared error {errors[0]:.4g} on the CPU, {errors[1]:.4g} on the GPU",
        )


def _check_gradient(
    subject: Subject, compressed: MethodCode, params: dict[str, Tensor], name: str, text: str
) -> None:
    """Compare the gradient of one tensor with a central difference along a random direction."""
    value = params[name]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(value.shape, generator=generator) * value.abs().mean().clamp(min=1e-3)
    probe = gaussian(REFERENCE, seed=1)

    def loss(tensor: Tensor) -> Tensor:
        matrix = reconstruct(compressed, {**params, name: tensor}, subject.plugins)
        return (matrix.double() * probe).sum()

    leaf = value.clone().requires_grad_(True)
    result = loss(leaf)
    require(result.requires_grad, f"{text}: part {name} takes no part in the graph")
    result.backward()
    require(leaf.grad is not None, f"{text}: part {name} gets no gradient")
    assert leaf.grad is not None
    along = float((leaf.grad.double() * direction).sum())
    with torch.no_grad():
        step = 1e-2
        measured = float(loss(value + step * direction) - loss(value - step * direction)) / (
            2 * step
        )
    scale = float(leaf.grad.double().norm() * direction.double().norm())
    require(
        abs(along - measured) <= _GRADIENT * scale + 1e-6,
        f"{text}: part {name} has gradient {along:.4g} where differences give {measured:.4g}",
    )


def _close(found: Tensor, expected: Tensor, what: str) -> None:
    require(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}")
    limit = _RELATIVE * float(expected.abs().max())
    far = float((found.detach() - expected).abs().max())
    require(far <= limit, f"{what} by up to {far:.3g}")
