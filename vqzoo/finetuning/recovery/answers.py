"""What recovery compares: centred logits."""

from torch import Tensor, nn

from vqzoo.evaluation.answers import logits_of


def centred(network: nn.Module, images: Tensor) -> Tensor:
    """The logits less the mean of each image's, (B, classes)."""
    logits = logits_of(network, images)
    return logits - logits.mean(1, keepdim=True)
