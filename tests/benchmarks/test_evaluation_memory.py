"""Memory of evaluating a network on a batch of large images, beside all of them at once."""

import pytest
import timm
import torch
from report import PeakMemory
from torch import nn

from vqzoo.evaluation.answers import logits_of

BATCH = 250  # of `vqzoo run`


@torch.inference_mode()
def peak(network: nn.Module, images: torch.Tensor, few: bool) -> float:
    """GB held above what was held before."""
    with PeakMemory() as memory:
        logits_of(network, images) if few else network(images)
    return memory.peak / 1e9


def test_memory_of_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    network = timm.create_model("tf_efficientnet_lite0").eval()
    images = torch.rand(BATCH, 3, 224, 224)
    some, whole = peak(network, images, few=True), peak(network, images, few=False)
    with capsys.disabled():
        print(f"\n{BATCH} images: {some:.2f} GB a few at a time, {whole:.2f} GB at once")
    assert some < whole / 3
