"""Batches that pass a network's layers in step, and biases that are corrected that way."""

import threading
from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.calibration.corrections import with_corrected_layers
from vqzoo.calibration.in_step import Call, OutOfStep, run_in_step
from vqzoo.calibration.moments import Moments
from vqzoo.calibration.passes import Passes
from vqzoo.calibration.repair import repair
from vqzoo.data.batches import Batch

CPU = torch.device("cpu")


def batches(shape: tuple[int, ...], sizes: tuple[int, ...] = (4, 4, 3)) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(size, *shape, generator=generator), None) for size in sizes]


@torch.no_grad()
def test_every_batch_is_at_a_layer_before_any_passes_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    images = [batch.images for batch in batches((3,))]
    bias = network[0].bias.clone()
    stops: list[str] = []

    def add_one(name: str, calls: list[Call]) -> None:
        stops.append(name)
        part = network[: int(name) + 1]
        for call, x in zip(calls, images, strict=True):
            assert torch.equal(call.output, part(x))
            assert torch.equal(call.arguments[0], part[:-1](x))
        network.get_submodule(name).bias.add_(1)

    threads = threading.active_count()
    answers = run_in_step(network, ["0", "2"], images, add_one)
    assert stops == ["0", "2"]
    assert torch.equal(network[0].bias, bias + 1)
    for answer, x in zip(answers, images, strict=True):
        assert torch.equal(answer, network(x))
    assert threading.active_count() == threads
    assert not any(module._forward_hooks for module in network.modules())


class Branching(nn.Module):
    """Takes its layers in an order that depends on the images, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:
            raise RuntimeError("too bright")
        first, second = (self.a, self.b) if x.sum() > 0 else (self.b, self.a)
        out: Tensor = second(first(x))
        return out


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ([torch.ones(1, 2), -torch.ones(1, 2)], OutOfStep),
        ([torch.ones(1, 2), 1e7 * torch.ones(1, 2)], RuntimeError),
    ],
)
def test_threads_end_and_hooks_go_whatever_happens(
    images: list[Tensor], error: type[Exception]
) -> None:
    threads = threading.active_count()
    network = Branching()
    with pytest.raises(error):
        run_in_step(network, ["a", "b"], images, lambda name, calls: None)
    assert threading.active_count() == threads
    assert not any(module._forward_hooks for module in network.modules())


def corrected(dense: nn.Module, small: nn.Module, data: list[Batch], memory: int) -> nn.Module:
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm2d)
    names = [name for name, module in small.named_modules() if isinstance(module, kinds)]
    names = [name for name in names if getattr(small.get_submodule(name), "bias", None) is not None]
    passes = Passes(lambda: iter(data), sum(len(batch.images) for batch in data), CPU, None)
    moments = Moments()
    with torch.no_grad():
        with moments.of(dense, names):
            list(passes.run(dense))
        return with_corrected_layers(small, moments, moments.names(), passes, memory)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_in_step_and_one_by_one_are_the_same_to_the_bit(name: str) -> None:
    torch.manual_seed(0)
    dense = timm.create_model(name, num_classes=5).eval()
    small = vqzoo.compress(dense, "km", layers="all", k=3).module
    data = batches(dense.pretrained_cfg["input_size"])
    in_step = corrected(dense, small, data, 1 << 30).state_dict()
    one_by_one = corrected(dense, small, data, 0).state_dict()
    changed = [k for k, v in in_step.items() if not torch.equal(v, small.state_dict()[k])]
    assert changed
    assert all(key.endswith(("bias", "running_mean", "running_var")) for key in changed)
    for key, tensor in in_step.items():
        assert torch.equal(tensor, one_by_one[key]), key


def test_a_network_that_changes_its_order_is_corrected_one_by_one() -> None:
    torch.manual_seed(0)
    dense = Branching().eval()
    small = vqzoo.compress(dense, "binary", layers="all").module
    data = [Batch(torch.rand(2, 2), None), Batch(-torch.rand(2, 2), None)]
    changed = corrected(dense, small, data, 1 << 30)
    assert not torch.equal(changed.a.bias, small.a.bias)


def test_a_repair_takes_as_many_passes_for_many_biases_as_for_one() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    small = vqzoo.compress(dense, "km", layers="all", k=2)
    data = batches((8,))
    started: list[int] = []
    steps: list[tuple[int, int]] = []

    def start() -> Iterator[Batch]:
        started.append(1)
        return iter(data)

    names = [layer.layer.name for layer in small.layers]
    found = repair(dense, small.module, names, start, 11, progress=lambda *step: steps.append(step))
    assert found.biases == names
    # The dense network and the corrected one; on held-out images also the compressed one.
    assert len(started) == 5
    assert steps == sorted(steps)
    assert steps[-1] == (18, 18)
