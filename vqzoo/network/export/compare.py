"""Compare what was exported with the artifact."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqzoo.data.model_input import input_size
from vqzoo.errors import VqzooError
from vqzoo.network.export.record import Check

# Of the largest logit: other kernels round otherwise.
TOLERANCE = 1e-3
_BATCHES = (3, 1)


def example_images(model: nn.Module, count: int) -> Tensor:
    """Random images (count, channels, height, width), always the same."""
    return torch.randn(count, *input_size(model), generator=torch.Generator().manual_seed(0))


def compare(
    run: Callable[[Tensor], Tensor], dense: nn.Module, runtime: str, what: str, tolerance: float
) -> Check:
    """Compare logits on random images, in batches of two sizes, with those of the dense network.

    Args:
        run: what was written: images to logits.
        dense: the artifact's network with decoded weights.
        runtime: what runs it, with its version.
        what: the name for messages.
        tolerance: the largest error, relative to the largest logit.

    Raises:
        VqzooError: the logits differ by more.
    """
    largest = 0.0
    for count in _BATCHES:
        images = example_images(dense, count)
        with torch.no_grad():
            expected = dense(images)
        largest_logit = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        error = (run(images) - expected).abs().max() / largest_logit
        largest = max(largest, float(error))
        if not error <= tolerance:
            raise VqzooError(f"{what}'s logits differ from torch's by {error:.1e} of the largest")
    return Check(runtime=runtime, error=largest, tolerance=tolerance)
