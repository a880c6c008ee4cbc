"""Rules for decoding: the fast and the differentiable path give the same matrix."""

import torch
from torch import Tensor

from vqzoo.compression.decode import decode, reconstruct, trainable
from vqzoo.compression.products.prepared import prepare
from vqzoo.plugin.code import MethodCode
from vqzoo.testing.broken import require
from vqzoo.testing.codes import code_to
from vqzoo.testing.matrices import REFERENCE, SHAPES, gaussian
from vqzoo.testing.subject import Subject

_MATRIX_TOLERANCE = 1e-5  # a float32 sum in another order
_GRADIENT_TOLERANCE = 0.02
_DEVICE_TOLERANCE = 0.05


def reconstruct_equals_decode(subject: Subject) -> None:
    """`reconstruct`, in plain torch, gives the same matrix as the fast `decode`, up to the rounding
    of a float32 sum: the network that is fine-tuned is the one that will run."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is not None:
                code, decoded = result
                plain = reconstruct(code, trainable(code, subject.plugins), subject.plugins)
                _require_close(plain, decoded, f"{case.name}, {text}: reconstruct and decode")


def decode_writes_into_out(subject: Subject) -> None:
    """If `decode` is given `out`, a contiguous matrix with arbitrary values, it writes the decoded
    matrix there."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is not None:
                code, decoded = result
                out = torch.full(case.matrix_shape, float("nan"))
                decode(code, subject.plugins, out)
                require(torch.equal(out, decoded), f"{case.name}, {text}: out holds another matrix")


def rows_decode_to_rows_of_the_matrix(subject: Subject) -> None:
    """If the method has a `row_step`, `rows` gives codes that decode to those rows of the matrix,
    up to the rounding of a float32 sum: networks that run from codes decode a few at a time."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is None:
                continue
            code, decoded = result
            prepared = prepare(code, subject.plugins)
            if not (step := prepared.row_step):
                continue
            m, n = decoded.shape
            require(step > 0, f"{case.name}, {text}: row_step is {step}")
            middle = min(m, -(-m // 2 // step) * step)
            for start, stop in ((0, middle), (middle, m), (0, min(step, m))):
                if start == stop:
                    continue
                what = f"{case.name}, {text}: rows {start} to {stop} and those of the matrix"
                out = torch.full((stop - start, n), float("nan"))
                rows = prepared.decode_rows(start, stop, out)
                _require_close(rows, decoded[start:stop], what)


def decoding_does_not_modify_the_code(subject: Subject) -> None:
    """Decoding writes neither to the code nor to the params: a second decoding gives the same
    matrix, whatever the caller did to the first."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        first = decode(compressed, subject.plugins)
        before = first.clone()
        first.add_(1)
        second = decode(compressed, subject.plugins)
        require(torch.equal(before, second), f"{text}: the second decoding gives another matrix")


def reconstruct_is_differentiable(subject: Subject) -> None:
    """`reconstruct` gives every tensor of `trainable` the gradient that finite differences give:
    fine-tuning differentiates through it."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        params = trainable(compressed, subject.plugins)
        for name in params:
            _check_gradient(subject, compressed, params, name, text)


def cpu_and_gpu_agree(subject: Subject) -> None:
    """If there is a GPU, it decodes a code to the same matrix as the CPU does, and quantizing on it
    gives the same squared error within 5%."""
    if not torch.cuda.is_available():
        return
    weight, cuda = gaussian(REFERENCE), torch.device("cuda")
    for text, options in subject.variants(REFERENCE):
        on_cpu = subject.quantize(weight, options)
        decoded = decode(on_cpu, subject.plugins)
        moved = decode(code_to(on_cpu, cuda), subject.plugins).cpu()
        _require_close(moved, decoded, f"{text}: decoding on the GPU and on the CPU")
        on_gpu = decode(subject.quantize(weight.to(cuda), options), subject.plugins).cpu()
        cpu_error, gpu_error = (
            float((weight - matrix).square().sum()) for matrix in (decoded, on_gpu)
        )
        require(
            abs(gpu_error - cpu_error) <= _DEVICE_TOLERANCE * cpu_error + 1e-6,
            f"{text}: squared error {cpu_error:.4g} on the CPU, {gpu_error:.4g} on the GPU",
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
    require(result.requires_grad, f"{text}: the result does not depend on part {name}")
    result.backward()
    require(leaf.grad is not None, f"{text}: part {name} gets no gradient")
    assert leaf.grad is not None
    computed = float((leaf.grad.double() * direction).sum())
    step = 1e-2
    with torch.no_grad():
        difference = float(loss(value + step * direction) - loss(value - step * direction))
    measured = difference / (2 * step)
    scale = float(leaf.grad.double().norm() * direction.double().norm())
    require(
        abs(computed - measured) <= _GRADIENT_TOLERANCE * scale + 1e-6,
        f"{text}: part {name} has gradient {computed:.4g}, but finite differences give "
        f"{measured:.4g}",
    )


def _require_close(matrix: Tensor, expected: Tensor, what: str) -> None:
    require(
        matrix.shape == expected.shape,
        f"{what} give shapes {tuple(matrix.shape)} and {tuple(expected.shape)}",
    )
    limit = _MATRIX_TOLERANCE * float(expected.abs().max())
    difference = float((matrix.detach() - expected).abs().max())
    require(difference <= limit, f"{what} differ by up to {difference:.3g}")
