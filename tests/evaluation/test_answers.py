"""Networks of any precision, and of answers that are not a tensor."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.data.evaluation_data import open_data
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.accuracy import agreement
from vqzoo.evaluation.answers import logits_of
from vqzoo.evaluation.retrieval import extract_features

Outputs = namedtuple("Outputs", ["logits", "aux_logits"])


def mini() -> nn.Module:
    vqzoo.register_models()
    return timm.create_model("alexnet_mini.fmnist", pretrained=True).eval()


class Answering(nn.Module):
    """The embedded network, its logits in some container."""

    def __init__(self, convert: Any) -> None:
        super().__init__()
        self.network = mini()
        self.pretrained_cfg = self.network.pretrained_cfg
        self.num_classes = 10
        self.convert = convert

    def forward(self, x: Tensor) -> Any:
        return self.convert(self.network(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    network = mini()
    plain, again = vqzoo.evaluate(network, images=20), mini().to(dtype)
    result = vqzoo.evaluate(again, images=20)
    assert torch.equal(result.correct, plain.correct)
    alike = agreement(network, again, images=5)
    assert alike.top1 == 100
    assert alike.kl < 1e-3
    data = open_data("fmnist", again, images=12)
    assert extract_features(again, "mini", data).vectors.dtype == torch.float32


@pytest.mark.parametrize(
    "convert",
    [
        lambda logits: Outputs(logits, None),
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: {"logits": logits, "loss": None},
    ],
)
def test_logits_by_name(convert: Any) -> None:
    expected = vqzoo.evaluate(mini(), images=30)
    network = Answering(convert)
    assert torch.equal(vqzoo.evaluate(network, images=30).correct, expected.correct)
    assert agreement(mini(), network, images=20).top1 == 100


@pytest.mark.parametrize(
    ("convert", "says"),
    [
        (lambda logits: (logits, logits), "a tuple of 2, not a tensor of logits"),
        (lambda logits: [logits], "a list of 1"),
        (lambda logits: {"out": logits}, "a dict"),
        (lambda logits: None, "a NoneType"),
        (lambda logits: logits[..., None, None], r"shape \(5, 10, 1, 1\) for 5 images"),
        (lambda logits: logits[:1], r"shape \(1, 10\) for 5 images"),
        (lambda logits: logits.sum(1), r"shape \(5,\) for 5 images"),
    ],
)
def test_other_answers_are_refused_in_a_line(convert: Any, says: str) -> None:
    network = Answering(convert)
    with pytest.raises(UsageError, match=says) as caught:
        vqzoo.evaluate(network, images=5)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=says):
        agreement(mini(), network, images=5)


def fails(error: BaseException) -> Any:
    def convert(logits: Tensor) -> Tensor:
        raise error

    return convert


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2\ndo not fit"), AssertionError("size"), KeyError("x")]
)
def test_a_network_that_fails_is_reported_in_a_line(error: Exception) -> None:
    with pytest.raises(
        VqzooError, match=r"^the network fails on images of 1 x 28 x 28: "
    ) as caught:
        vqzoo.evaluate(Answering(fails(error)), images=5)
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_errors_of_vqzoo_and_interruptions_pass() -> None:
    with pytest.raises(VqzooError, match=r"^mine$"):
        vqzoo.evaluate(Answering(fails(VqzooError("mine"))), images=5)
    with pytest.raises(KeyboardInterrupt):
        vqzoo.evaluate(Answering(fails(KeyboardInterrupt())), images=5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_calibration_and_repair_in_other_precisions(dtype: torch.dtype) -> None:
    network = mini().to(dtype)
    for images in ("fmnist", [torch.randn(8, 1, 28, 28)]):
        small = vqzoo.compress(
            network, "km", k=4, layers="classifier.6", calibrate=images, repair=images,
            calibration_images=8,
        )  # fmt: skip
        assert small.repaired is not None
        assert small.module.get_parameter("classifier.6.weight").dtype == dtype


class Pooling(nn.Module):
    """Notes how many images it sees together."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@torch.no_grad()
def test_large_images_go_through_the_network_a_few_at_a_time() -> None:
    network, images = Pooling(), torch.rand(70, 3, 224, 224)
    expected = network(images)
    network.seen.clear()
    torch.testing.assert_close(logits_of(network, images), expected)
    assert network.seen == [32, 32, 6]
    logits_of(network, images[:, :, :28, :28])
    assert network.seen[3:] == [70]
    logits_of(network, images[:1].expand(2, 3, 224, 224).repeat(1, 1, 12, 12))  # one at a time
    assert network.seen[4:] == [1, 1]
