"""Codes move along the gradient of the answers, between epochs that train the floats.

Malinovskii et al. 2024 (PV-tuning), arXiv 2405.14852: a few codes move at a time, those for which
the loss promises to fall most. The promise is a quadratic model of the loss, ½ |Δz|² of centred
logits z, with the diagonal of its Gauss-Newton matrix as curvature.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.compression.plugin_calls import reassigned
from vqzoo.compression.view import weight_key
from vqzoo.finetuning.recovery.answers import centred
from vqzoo.finetuning.student import Student
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins

_SHARES = (0.02, 0.005, 0.001)  # of the codes of each layer, tried in turn
_FLOOR = 0.1  # of the mean curvature, added to each


@dataclass(frozen=True)
class Moved:
    """Codes that have moved.

    Attributes:
        divergence: as judged afterwards; that of before if none has moved.
        codes: how many codes have moved.
    """

    divergence: float
    codes: int


def moving_layers(student: Student, plugins: Plugins) -> list[str]:
    """The layers of a student whose methods can move codes, and whose codes have no children."""
    return [
        name
        for name, layer in student.layers.items()
        if plugins.method(layer.codes.method).item.reassigns and not layer.codes.code.children
    ]


def move_codes(
    student: Student,
    layers: Iterable[str],
    plain: nn.Module,
    teacher: nn.Module,
    views: Iterable[Tensor],
    divergence: float,
    measured: Callable[[], float],
    fits: Callable[[], bool],
    plugins: Plugins,
    generator: torch.Generator,
) -> Moved:
    """Move the codes that promise most, if the network then diverges less on other images.

    Two percent of the codes of each layer are tried first, then fewer.

    Args:
        student: its codes change.
        layers: names of the layers whose codes may move.
        plain: the student's network, decoded as it is stored now, on the student's device.
        teacher: the dense network.
        views: batches of what the gradient follows from, on the networks' device.
        divergence: as judged now.
        measured: judges the student.
        fits: whether what the student would be stored as is small enough.
        plugins: the loaded plugins.
        generator: of random vectors, on the CPU.
    """
    before = {name: student.layers[name].codes for name in layers}
    shapes = {name: code.code.shape for name, code in before.items()}
    models = _models(plain, shapes, teacher, views, generator)
    for share in _SHARES:
        changed = 0
        for name, (gradient, curvature) in models.items():
            layer, code = student.layers[name], before[name]
            params = {part: values.detach() for part, values in layer.floats().items()}
            moved = reassigned(code, params, gradient, curvature, share, plugins)
            layer.change_codes(code if moved is None else moved)
            changed += 0 if moved is None else _count_changed(code, moved)
        if not changed:
            break
        if fits() and (now := measured()) < divergence:
            return Moved(now, changed)
    for name, code in before.items():
        student.layers[name].change_codes(code)
    return Moved(divergence, 0)


def _models(
    plain: nn.Module,
    shapes: Mapping[str, tuple[int, int]],
    teacher: nn.Module,
    views: Iterable[Tensor],
    generator: torch.Generator,
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Gradient and curvature of the loss by each layer's matrix, (m, n) each, the mean over images.

    `shapes` has each layer's (m, n). Layers where either is not finite, or that do not reach the
    answers, are left out.
    """
    weights = {name: plain.get_parameter(weight_key(name)) for name in shapes}
    slopes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    bends = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    images = 0
    for weight in weights.values():
        weight.requires_grad_(True)
    for batch in views:
        with torch.no_grad():
            targets = centred(teacher, batch)
        answers = centred(plain, batch)
        loss = (answers - targets).square().sum() / 2
        wanted = list(weights.values())
        v = torch.randn(answers.shape, generator=generator).to(answers)
        for sums, scalar, power in ((slopes, loss, 1), (bends, (v * answers).sum(), 2)):
            gradients = torch.autograd.grad(
                scalar, wanted, retain_graph=power == 1, allow_unused=True
            )
            for name, gradient in zip(shapes, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient**power
        images += len(batch)
    for weight in weights.values():
        weight.requires_grad_(False)
    models: dict[str, tuple[Tensor, Tensor]] = {}
    for name in shapes:
        gradient = slopes[name].view(shapes[name]) / images
        curvature = _separable(bends[name].view(shapes[name]) / images)
        if math.isfinite(float(gradient.sum())) and 0 < float(curvature.sum()) < math.inf:
            models[name] = (gradient, curvature)
    return models


def _separable(curvature: Tensor) -> Tensor:
    """A matrix of noisy curvatures as a product of rows and columns, as in K-FAC, kept from
    extremes."""
    rows, columns = curvature.mean(1, keepdim=True), curvature.mean(0, keepdim=True)
    mean = curvature.mean()
    return rows * columns / mean + _FLOOR * mean


def _count_changed(one: MethodCode, other: MethodCode) -> int:
    parts = [name for name, part in one.code.parts.items() if hasattr(part, "cardinality")]
    return sum(int((one.code.indices(n) != other.code.indices(n)).sum()) for n in parts)
