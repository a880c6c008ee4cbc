"""The public functions on tensors of a device other than the CPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fake_device import DEVICE, FakeDevice
from torch import Tensor
from vqzoo_uniform.rtn import RoundToNearest
from vqzoo_vq.binary import Binary
from vqzoo_vq.kmeans import ScalarKMeans
from vqzoo_vq.pq import ProductQuantization
from vqzoo_vq.rq import ResidualQuantization

from vqzoo.numerics.accelerated import torch_decode
from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans
from vqzoo.numerics.decoding.decode import decode_residual, decode_scalar
from vqzoo.numerics.feedback.layer import feedback_loss
from vqzoo.plugin import LayerContext, Quantizer, SecondOrder


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with FakeDevice():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(points: Tensor, clusters: Clusters) -> float:
    codes, centroids = clusters.codes.cpu(), clusters.centroids.cpu()
    index = codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    return float((centroids.gather(1, index).transpose(1, 2) - points).square().sum())


def test_the_fake_device_refuses_what_a_real_one_refuses() -> None:
    tensor = draw(3).to(DEVICE)
    assert tensor.device == DEVICE
    assert (tensor + 1).cpu().equal(draw(3) + 1)
    with pytest.raises(RuntimeError, match="several devices"):
        tensor + draw(3)
    with pytest.raises(RuntimeError):
        tensor.numpy()


@pytest.mark.parametrize("sample", [None, 500])
def test_kmeans_returns_its_results_on_the_device(sample: int | None) -> None:
    points = draw(3, 4, 1000)
    clusters = kmeans(points.to(DEVICE), 16, sample=sample)
    assert clusters.codes.device == clusters.centroids.device == DEVICE
    assert clusters.codes.dtype == torch.uint8
    assert error(points, clusters) <= 1.05 * error(points, kmeans(points, 16, sample=sample))


def test_weights_count_on_the_device() -> None:
    points, weights = draw(2, 3, 200), torch.ones(2, 200)
    weights[:, 100:] = 0
    clusters = kmeans(points.to(DEVICE), 8, weights=weights.to(DEVICE))
    near = Clusters(clusters.centroids, clusters.codes[:, :100])
    alone = points[:, :, :100]
    assert error(alone, near) <= 1.1 * error(alone, kmeans(alone, 8))


def test_assign_returns_the_codes_of_the_cpu() -> None:
    points, centroids = draw(3, 4, 500), draw(3, 300, 4)
    codes = assign(points.to(DEVICE), centroids.to(DEVICE))
    assert codes.device == DEVICE
    assert codes.cpu().equal(assign(points, centroids))


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int]] = []
    kmeans(draw(3, 2, 50).to(DEVICE), 4, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_an_interrupt_is_raised() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kmeans(draw(3, 2, 50).to(DEVICE), 4, progress=interrupt)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("k", "at_a_time"), [(200, 1 << 24), (300, 1 << 24), (300, 50)])
def test_blocks_are_decoded_on_the_device(
    k: int, at_a_time: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_decode, "VALUES", at_a_time)
    codes = torch.arange(5 * 2 * 7).view(5, 2, 7) * 13 % k
    codes = codes.to(torch.uint8 if k <= 256 else torch.int32)
    codebooks = draw(1 if shared else 5, 2, k, 3).half()
    wide = torch.zeros(7, 20).to(DEVICE)
    out = wide[:, 2:17]
    decode_residual(codes.to(DEVICE), codebooks.to(DEVICE), out)
    expected = decode_residual(codes, codebooks, torch.empty(7, 15))
    assert out.cpu().equal(expected)


def test_scalars_are_decoded_on_the_device() -> None:
    codes, centroids = torch.arange(60, dtype=torch.uint8).view(5, 12) % 16, draw(16)
    out = torch.zeros(5, 12).to(DEVICE)
    assert decode_scalar(codes.to(DEVICE), centroids.to(DEVICE), out) is out
    assert out.cpu().equal(centroids[codes.long()])


@pytest.mark.parametrize("code", [-1, 300])
def test_codes_out_of_range_are_refused(code: int) -> None:
    codes = torch.tensor([[[0, code, 2]]], dtype=torch.int32).to(DEVICE)
    with pytest.raises(ValueError, match="300 centroids"):
        decode_residual(codes, draw(1, 1, 300, 2).to(DEVICE), torch.empty(3, 2).to(DEVICE))
    with pytest.raises(ValueError, match="300 centroids"):
        decode_scalar(codes, draw(300).to(DEVICE), torch.empty(1, 1, 3).to(DEVICE))


def test_an_output_of_another_shape_is_refused() -> None:
    codes = torch.zeros((1, 1, 3), dtype=torch.uint8).to(DEVICE)
    with pytest.raises(ValueError, match="out must be"):
        decode_residual(codes, draw(1, 1, 4, 2).to(DEVICE), torch.empty(3, 3).to(DEVICE))
    with pytest.raises(ValueError, match="contiguous"):
        decode_scalar(codes, draw(4).to(DEVICE), torch.empty(3, 2).to(DEVICE)[:, 0])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ScalarKMeans(), {"k": 16}),
        (ProductQuantization(), {"k": 16, "axis": "rows", "codebook": "block"}),
        (ResidualQuantization(), {"k": 8, "d": 4}),
    ],
    ids=["km", "pq", "rq"],
)
def test_methods_compress_and_decode_on_the_device(
    method: Quantizer, options: dict[str, Any]
) -> None:
    matrix = draw(64, 37)
    errors = []
    for device in (torch.device("cpu"), DEVICE):
        context = LayerContext(
            layer="layer",
            kind="linear",
            shape=(64, 37),
            groups=1,
            seed=0,
            device=device,
            note=lambda text: None,
            progress=lambda done, total: None,
            quantize=lambda name, matrix, options: pytest.fail("has no children"),
        )
        code = method.quantize(matrix.to(device), method.Options(**options), context)
        decoded = method.decode(code, code.floats())
        assert decoded.device == device
        rebuilt = method.reconstruct(code, code.floats()).cpu()
        torch.testing.assert_close(decoded.cpu(), rebuilt)
        errors.append(float((decoded.cpu() - matrix).square().sum()))
    assert errors[1] == pytest.approx(errors[0], rel=0.07)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ScalarKMeans(), {"k": 8}),
        (ProductQuantization(), {"k": 16}),
        (ProductQuantization(), {"k": 16, "d": 5, "codebook": "block"}),
        (ProductQuantization(), {"k": 16, "axis": "rows"}),
        (ResidualQuantization(), {"k": 8, "d": 4}),
        (RoundToNearest(), {"format": "int3"}),
        (Binary(), {"scale": "tensor"}),
    ],
    ids=lambda value: value.name if isinstance(value, Quantizer) else str(value),
)
def test_errors_are_fed_back_on_the_device(method: Quantizer, options: dict[str, Any]) -> None:
    matrix, mixing = draw(64, 36), draw(2, 36, 36, seed=1)
    statistics = SecondOrder((mixing @ mixing.mT / 36,), draw(64, seed=2).square())
    losses: list[float] = []
    for device in (torch.device("cpu"), DEVICE):
        context = LayerContext(
            layer="layer",
            kind="conv1d",
            shape=(64, 36, 1),
            groups=2,
            seed=0,
            device=device,
            note=lambda text: None,
            progress=lambda done, total: None,
            quantize=lambda name, matrix, options: pytest.fail("has no children"),
            second_order=statistics.to(device),
        )
        code = method.quantize(matrix.to(device), method.Options(**options), context)
        decoded = method.decode(code, code.floats())
        assert decoded.device == device
        error = matrix - decoded.cpu()
        losses.append(feedback_loss(error, statistics.hessian, statistics.row_weights))
    assert losses[1] == pytest.approx(losses[0], rel=0.3)  # other clusters, as good ones
