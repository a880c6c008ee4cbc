"""How far one step may move each tensor: as far as the answers bear it."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

_SHARE = 0.002  # of the loss at the start, that a step in a random direction may add


def step_sizes(
    answers: Callable[[Tensor], Tensor],
    tensors: Mapping[str, nn.Parameter],
    views: Iterable[Tensor],
    loss: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """The largest change of each element in a step, such that all tensors bear the same share.

    Moving every element of a tensor by δ in random directions adds about ½ c δ² to the loss
    ½ |Δz|² of answers z, with c = E[|∂(vᵀz)/∂θ|²] for v ~ N(0, I): the Gauss-Newton metric, as for
    weights (`vqzoo.calibration.second_order`). Tensors of early layers, which are coded finely,
    move little; those behind coarse codes move far.

    Args:
        answers: gives z for a batch, (B, ...), with gradients on: the centred logits, or weighted
            outputs of a block.
        tensors: what is trained.
        views: batches of what `answers` takes.
        loss: ½ |Δz|² at the start, an image.
        generator: of the random vectors v, on the CPU.

    Returns:
        Name -> step; 0 for tensors that do not reach the answers, or overflow on the way.
    """
    costs, images = dict.fromkeys(tensors, 0.0), 0
    for batch in views:
        z = answers(batch)
        v = torch.randn(z.shape, generator=generator).to(z)
        gradients = torch.autograd.grad((v * z).sum(), list(tensors.values()), allow_unused=True)
        for name, gradient in zip(tensors, gradients, strict=True):
            if gradient is not None:
                costs[name] += float(gradient.double().square().sum())
        images += len(batch)
    share = 2 * _SHARE * loss / len(tensors)
    return {
        name: math.sqrt(share * images / cost) if 0 < cost < math.inf else 0.0
        for name, cost in costs.items()
    }
