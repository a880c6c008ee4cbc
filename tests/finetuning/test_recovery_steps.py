"""The pieces of recovery: views of images, sizes of steps, and what is kept."""

import copy

import pytest
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.data.batches import Batch, Data
from vqzoo.data.views import random_views
from vqzoo.finetuning.recovery.loop import FIRST_PATIENCE, learn_answers
from vqzoo.finetuning.recovery.recover import recover
from vqzoo.finetuning.recovery.state import RecoveryState
from vqzoo.finetuning.recovery.step_sizes import step_sizes
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_show_parts_of_images_and_mixtures_of_them() -> None:
    flat = torch.arange(40.0)[:, None, None, None].expand(40, 3, 8, 10).contiguous()
    views = random_views(flat, generator())
    assert views.shape == flat.shape
    assert torch.allclose(views.amax((1, 2, 3)), views.amin((1, 2, 3)), atol=1e-4)
    plain = (views[:, 0, 0, 0] - torch.arange(40.0)).abs() < 1e-4
    assert 8 <= int(plain.sum()) <= 32
    ramp = torch.linspace(0, 1, 10).expand(40, 1, 8, 10).contiguous()
    seen = random_views(ramp, generator())
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    slopes = seen[:, 0, 0, 6] - seen[:, 0, 0, 4]
    assert bool((slopes > 0.01).any())
    assert bool((slopes < -0.01).any())  # mirrored
    assert torch.equal(seen, random_views(ramp, generator()))
    assert not torch.equal(seen, random_views(ramp, generator(1)))


def test_steps_move_the_logits_of_a_linear_layer_alike() -> None:
    """z = Wx + b: for centred v, E|v|² = classes - 1, and |∂(vᵀz)/∂W|² = |v|² |x|²."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 20)
    unused = nn.Parameter(torch.ones(3))
    tensors = {"weight": layer.weight, "bias": layer.bias, "unused": unused}
    images = torch.randn(3000, 6)
    # One image a batch: gradients of images are not to be summed before they are squared.

    def centred(batch: Tensor) -> Tensor:
        logits = layer(batch)
        return logits - logits.mean(1, keepdim=True)

    sizes = step_sizes(centred, tensors, images.split(1), 2.0, generator())
    energy = float(images.square().sum(1).mean())
    share = sizes["bias"] ** 2 * 19
    assert sizes["weight"] ** 2 * 19 * energy == pytest.approx(share, rel=0.05)
    assert sizes["unused"] == 0
    larger = step_sizes(centred, tensors, images.split(1), 8.0, generator())
    assert larger["bias"] == pytest.approx(2 * sizes["bias"])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def images_of(images: Tensor) -> Data:
    batches = [Batch(part, None) for part in images.split(16)]
    return Data("noise", len(images), None, "none", lambda: iter(batches))


def test_what_others_deem_worse_is_not_kept(network: nn.Module) -> None:
    torch.manual_seed(1)
    small = vqzoo.compress(network, "km", layers="all", k=4)
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    kept = copy.deepcopy(small.module)
    judged: list[float] = []

    def worse(decoded: nn.Module) -> float:
        judged.append(1.0 + len(judged))
        return judged[-1]

    learned = learn_answers(
        small.module, codes, network, images_of(torch.randn(32, 3, 8, 8)), worse,
        installed_plugins(), SilentWatcher(), seed=0, device=torch.device("cpu"),
        state=RecoveryState(None), fits=lambda codes: True,
    )  # fmt: skip
    assert learned.best_epoch == learned.moved == 0
    assert len(learned.divergence) == FIRST_PATIENCE + 1
    assert learned.divergence == sorted(learned.divergence)
    assert set(learned.divergence) < set(judged)  # moved codes were judged, too
    for key, tensor in kept.state_dict().items():
        assert torch.equal(tensor, learned.module.state_dict()[key]), key


def test_recovery_learns_and_changes_neither_network(network: nn.Module) -> None:
    torch.manual_seed(2)
    small = vqzoo.compress(network, "km", layers="all", k=3)
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    before = copy.deepcopy(small.module.state_dict())
    dense = copy.deepcopy(network.state_dict())
    recovered = recover(
        small.module, codes, network, images_of(torch.randn(64, 3, 8, 8)),
        images_of(torch.randn(64, 3, 8, 8)), installed_plugins(), SilentWatcher(), seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    first, last = recovered.divergence
    assert last < 0.9 * first
    assert last == min(recovered.epochs)
    assert all(torch.equal(dense[key], value) for key, value in network.state_dict().items())
    assert all(torch.equal(before[key], value) for key, value in small.module.state_dict().items())
