"""Second-order statistics are those of the definition, computed one image at a time."""

import pytest
import timm
import torch
from torch import Tensor, nn

from vqzoo.calibration.input_vectors import input_vectors
from vqzoo.calibration.second_order.statistics import block_width, second_order
from vqzoo.compression.view import compressible_layers
from vqzoo.data.batches import Batch
from vqzoo.plugin.second_order import SecondOrder

IMAGES = torch.randn(6, 4, 9, 7, generator=torch.Generator().manual_seed(1))
CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    nn.Conv2d(4, 8, 3, groups=4, bias=False),
    nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"),
    nn.Conv1d(7, 6, 3, stride=2, padding=2),
    nn.Linear(7, 5),
]


class Net(nn.Module):
    """A plain, a depthwise and a pointwise convolution, an in-place activation and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.point = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.depthwise(self.act(self.stem(x))))
        return self.head(self.act(self.point(x)).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def gather(model: nn.Module, images: Tensor = IMAGES, **options: int) -> dict[str, SecondOrder]:
    layers, _ = compressible_layers(model)
    batches = [Batch(part, None) for part in images.split(4)]
    return second_order(model, layers, batches, len(images), **options)


@pytest.mark.parametrize("module", CONVOLUTIONS, ids=str)
def test_a_matrix_times_its_input_vectors_is_the_output(module: nn.Module) -> None:
    x = IMAGES.flatten(0, 1).movedim(1, 2) if isinstance(module, nn.Conv1d) else IMAGES
    with torch.no_grad():
        output = module(x)
    columns = input_vectors(module, x, output)
    weight = module.weight.detach().flatten(1).unflatten(0, (len(columns), -1))
    product = (weight @ columns).flatten(0, 1)
    if module.bias is not None:
        product = product + module.bias.detach()[:, None]
    channel = -1 if isinstance(module, nn.Linear) else 1
    assert torch.allclose(product, output.movedim(channel, 0).flatten(1), atol=1e-5)


def test_the_hessian_is_the_mean_outer_product_of_inputs(net: Net) -> None:
    statistics = gather(net)
    inputs: list[Tensor] = []
    net.depthwise.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.no_grad():
        net(IMAGES)
    columns = input_vectors(net.depthwise, inputs[0], net.depthwise(inputs[0]))
    expected = columns @ columns.mT / columns.shape[2]
    (hessian,) = statistics["depthwise"].hessian
    assert hessian.shape == (6, 9, 9)
    assert torch.allclose(hessian, expected, rtol=1e-4, atol=1e-6)


def test_the_row_weights_are_squared_gradients_of_random_centred_logits(net: Net) -> None:
    statistics = gather(net, seed=3)
    generator = torch.Generator().manual_seed(3)
    expected = torch.zeros(6)
    for batch in IMAGES.split(4):  # the vectors are drawn a batch at a time
        vectors = torch.randn(len(batch), 3, generator=generator)
        for image, v in zip(batch, vectors, strict=True):
            output = net.stem(image[None]).detach().requires_grad_()
            hidden = net.point(torch.relu(net.depthwise(torch.relu(output))))
            logits = net.head(torch.relu(hidden).mean((2, 3)))[0]
            (v @ (logits - logits.mean())).backward()
            assert output.grad is not None
            expected += output.grad[0].square().sum((1, 2))
    assert torch.allclose(statistics["stem"].row_weights, expected / len(IMAGES), rtol=1e-4)


def test_the_prediction_is_the_change_of_the_logits(net: Net) -> None:
    """½ Σ g e H eᵀ over many draws is the squared change of a head's centred logits, to first order
    in the correlation of positions: exact for a head, which has one position an image."""
    statistics = gather(net, draws=4000)["head"]
    error = 0.01 * torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    (hessian,) = statistics.hessian
    predicted = (statistics.row_weights * ((error @ hessian[0]) * error).sum(1)).sum()
    inputs: list[Tensor] = []
    net.head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.no_grad():
        net(IMAGES)
    change = inputs[0] @ error.T
    # A diagonal of the output factor leaves the products of different rows out.
    centred = torch.eye(3) - 1 / 3
    exact = torch.stack([(change[:, [i]] * centred[i]).square().sum(1) for i in range(3)]).sum(0)
    assert float(predicted) == pytest.approx(float(exact.mean()), rel=0.1)


def test_the_model_is_left_as_it_was_and_a_seed_repeats(net: Net) -> None:
    net.train()
    net.head.weight.requires_grad_(False)
    first, again, other = gather(net), gather(net), gather(net, seed=1)
    assert net.training
    assert not net.head.weight.requires_grad
    assert net.stem.weight.requires_grad
    assert net.stem.weight.grad is None
    assert "unused" not in first
    for name, statistics in first.items():
        assert torch.equal(statistics.row_weights, again[name].row_weights)
        assert torch.equal(statistics.hessian[0], again[name].hessian[0])
        assert not torch.equal(statistics.row_weights, other[name].row_weights)


def test_memory_is_bounded_by_blocks_of_columns() -> None:
    layers, _ = compressible_layers(
        nn.Sequential(nn.Linear(300, 4), nn.Conv2d(64, 64, 3, groups=64))
    )
    assert block_width(layers) == 512
    limit = 4 * (2 * 128**2 + 44**2) + 4 * 64 * 9**2
    assert block_width(layers, limit) == 128
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(252, 4))
    whole, parts = gather(model)["1"], gather(model, limit=4 * (3 * 64**2 + 60**2))["1"]
    assert [block.shape[1] for block in parts.hessian] == [64, 64, 64, 60]
    assert torch.allclose(parts.hessian[1], whole.hessian[0][:, 64:128, 64:128], rtol=1e-5)


def test_a_wide_hessian_is_gathered_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(600, 4))
    images = torch.randn(12, 6, 10, 10)
    (hessian,) = gather(model, images)["1"].hessian
    x = images.flatten(1)
    torch.testing.assert_close(hessian[0], x.mT @ x / 12)
    assert torch.equal(hessian, hessian.mT)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_every_layer_of_real_architectures_is_seen(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    statistics = gather(model, torch.randn(5, 3, 160, 160))
    layers, _ = compressible_layers(model)
    assert statistics.keys() == {layer.name for layer in layers}
    for layer in layers:
        m, n = layer.matrix_shape
        assert statistics[layer.name].row_weights.shape == (m,)
        assert [block.shape for block in statistics[layer.name].hessian] == [(layer.groups, n, n)]


def test_values_that_are_not_finite_leave_a_layer_out(net: Net) -> None:
    images = IMAGES.clone()
    images[0, 0, 0, 0] = torch.inf
    assert "stem" not in gather(net, images)
