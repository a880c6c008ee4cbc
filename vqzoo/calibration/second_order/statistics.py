"""Gather H = E[x xᵀ] and the row weights g of each layer from unlabelled images.

A layer multiplies input vectors x by its (m, n) matrix W: y = Wx. An error E of the matrix changes
the logits by about

    Δ = ½ Σ_i g_i e_i H e_iᵀ        (squared logits an image)

with e_i the rows of E, H = E[x xᵀ] over images and output positions, and g_i the mean over images
of Σ_t (∂s/∂y_it)², s = vᵀ(z - mean z) for the logits z and v ~ N(0, I). This is K-FAC (Martens and
Grosse 2015, arXiv 1503.05671; for convolutions Grosse and Martens 2016, arXiv 1602.01407) with a
diagonal output factor and the Gauss-Newton metric of squared logit differences: it needs neither
labels nor a softmax, whose Fisher information all but vanishes on confident answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.input_vectors import KINDS, Convolution, input_vectors
from vqzoo.calibration.passes import in_eval_mode
from vqzoo.data.batches import Batch
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Steps

HESSIAN_BYTES = 2 << 30  # of all layers' H together
_WIDEST = 8192  # columns of a block of H: its factorization takes 1.5 GiB
_COPY = 1 << 24  # values of input vectors copied at a time: 64 MiB
_IMAGES = 16 * 3 * 224 * 224  # values of input images differentiated at a time


class LayerSums:
    """Running sums of one layer.

    Attributes:
        positions: input vectors so far, those of each group.
    """

    def __init__(self, layer: LayerInfo, width: int, device: torch.device) -> None:
        m, n = layer.matrix_shape
        self.groups = layer.groups
        self.bounds = [(start, min(start + width, n)) for start in range(0, n, width)]
        self.products = [
            torch.zeros(layer.groups, stop - start, stop - start, device=device)
            for start, stop in self.bounds
        ]
        self.positions = 0
        self.gradients = torch.zeros(m, dtype=torch.float64, device=device)

    def add_inputs(self, columns: Tensor) -> None:
        """Add x xᵀ of input vectors (groups, n, positions)."""
        self.positions += columns.shape[2]
        for (start, stop), product in zip(self.bounds, self.products, strict=True):
            block = columns[:, start:stop]
            product.baddbmm_(block, block.mT)

    def observe(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Add the input vectors of one call of the layer, of which 64 MiB are copied at a time."""
        n, positions = self.bounds[-1][1], output.numel() // len(self.gradients)
        at_once = max(1, _COPY * len(x) // max(1, positions * n * self.groups))
        for inputs, result in zip(x.split(at_once), output.split(at_once), strict=True):
            self.add_inputs(input_vectors(module, inputs.float(), result))

    def add_gradients(self, gradients: Tensor, channel: int) -> None:
        """Add squared gradients with respect to the layer's outputs."""
        self.gradients += gradients.movedim(channel, 0).flatten(1).float().square().sum(1)

    def hessian(self) -> tuple[Tensor, ...]:
        """H on the CPU, as blocks; the sums are spent."""
        return tuple(product.div_(self.positions).cpu() for product in self.products)

    def mean(self, samples: int) -> SecondOrder:
        """The statistics; `samples` counts images times vectors v. The sums are spent."""
        hessian = self.hessian()
        weights = (self.gradients / samples).float().cpu()
        return SecondOrder(hessian, weights if weights.any() else torch.ones_like(weights))


def second_order(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    batches: Iterable[Batch],
    images: int,
    *,
    seed: int = 0,
    draws: int = 1,
    limit: int = HESSIAN_BYTES,
    device: torch.device | None = None,
    progress: Steps | None = None,
) -> dict[str, SecondOrder]:
    """Gather the statistics of `layers` in one pass over the images.

    The same images, seed and batches give the same statistics. Beside H (at most `limit` bytes,
    see `block_width`), memory holds the activations of about sixteen images of 3 x 224 x 224 and
    64 MiB of input vectors.

    Args:
        model: the dense network, returning logits; it is run in eval mode.
        layers: the layers to observe.
        batches: preprocessed images.
        images: how many there are in all, for the progress callback.
        seed: of the random vectors v.
        draws: vectors v an image; each costs a backward pass. Layers that no gradient comes back to
            have row weights of 1.
        limit: bytes that the H of all layers may take.
        device: where to run the network.
        progress: called with (images done, images).

    Returns:
        Layer -> statistics, on the CPU. Layers that the network never called, or that saw values
        that are not finite, are missing.
    """
    device = device or torch.device("cpu")
    layers = [layer for layer in layers if layer.kind in KINDS]
    if not layers:
        return {}
    width = block_width(layers, limit)
    sums = {layer.name: LayerSums(layer, width, device) for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    done = 0
    with in_eval_mode(model, device), _only_activations(model), _observed(model, sums):
        for batch in batches:
            for chunk in batch.images.split(images_at_once(batch.images)):
                _backward_random(model, chunk.to(device), draws, generator)
                done += len(chunk)
                if progress is not None:
                    progress(done, images)
    statistics = {name: total.mean(done * draws) for name, total in sums.items() if total.positions}
    return {name: layer for name, layer in statistics.items() if _is_finite(layer)}


def block_width(layers: Sequence[LayerInfo], limit: int = HESSIAN_BYTES) -> int:
    """The widest blocks of columns, a power of two, with which the H of all layers take at most
    `limit` bytes; layers of no more columns have one block. At least 64, at most 8192."""
    width = min(_WIDEST, 1 << max(layer.matrix_shape[1] - 1 for layer in layers).bit_length())
    while width > 64 and sum(_hessian_bytes(layer, width) for layer in layers) > limit:
        width //= 2
    return width


def _hessian_bytes(layer: LayerInfo, width: int) -> int:
    whole, rest = divmod(layer.matrix_shape[1], width)
    return 4 * layer.groups * (whole * width**2 + rest**2)


def images_at_once(images: Tensor) -> int:
    """How many of the images go through the network at a time."""
    return max(1, _IMAGES // max(1, images[0].numel()))


def _backward_random(
    model: nn.Module, images: Tensor, draws: int, generator: torch.Generator
) -> None:
    """Back-propagate vᵀ(z - mean z) of some images through the hooks, for each draw of v."""
    answer = model(images.detach().requires_grad_())
    if not isinstance(answer, Tensor) or not answer.requires_grad:
        return  # H is all that can be had
    logits = answer.flatten(1)
    for draw in range(draws):
        v = torch.randn(logits.shape, generator=generator).to(logits)
        (v - v.mean(1, keepdim=True)).mul(logits).sum().backward(retain_graph=draw + 1 < draws)


@contextmanager
def _only_activations(model: nn.Module) -> Iterator[None]:
    """Gradients are on, but parameters take none."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def _observed(model: nn.Module, sums: dict[str, LayerSums]) -> Iterator[None]:
    """Hooks that add what the layers see, and the gradients that come back."""
    handles = [
        model.get_submodule(name).register_forward_hook(partial(_observe, total))
        for name, total in sums.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _observe(
    total: LayerSums, module: nn.Module, arguments: tuple[Any, ...], output: Tensor
) -> None:
    if not arguments:  # called by keyword
        return
    total.observe(module, arguments[0].detach(), output.detach())
    channel = 1 if isinstance(module, Convolution) else -1
    if output.requires_grad:
        # A tensor's hook, not the module's: an activation may overwrite the output in place.
        output.register_hook(lambda gradient: total.add_gradients(gradient, channel))


def _is_finite(layer: SecondOrder) -> bool:
    tensors = (*layer.hessian, layer.row_weights)
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
