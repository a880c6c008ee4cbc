"""The public functions on a CUDA device, against the CPU."""

import pytest
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import has_triton
from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans
from vqzoo.numerics.clustering.residual import residual_kmeans
from vqzoo.numerics.clustering.scalar_kmeans import scalar_kmeans
from vqzoo.numerics.decoding.decode import decode_residual, decode_scalar

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(points: Tensor, clusters: Clusters) -> float:
    codes, centroids = clusters.codes.cpu(), clusters.centroids.cpu()
    index = codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    return float((centroids.gather(1, index).transpose(1, 2) - points).double().square().sum())


def test_triton_works() -> None:
    assert has_triton(torch.empty(0, device="cuda").device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("d", "k"), [(1, 16), (3, 100), (4, 256), (9, 300), (32, 64), (40, 16)])
def test_kmeans_is_as_good_and_reproducible(d: int, k: int, dtype: torch.dtype) -> None:
    points = (draw(5, d, 3000) * 0.01).to(dtype)
    first, second = kmeans(points.cuda(), k), kmeans(points.cuda(), k)
    assert first.centroids.equal(second.centroids)
    assert first.codes.equal(second.codes)
    assert error(points.float(), first) <= 1.03 * error(points.float(), kmeans(points, k))


@pytest.mark.parametrize("k", [1, 256, 65_536])
def test_codes_are_those_of_the_nearest_centroids(k: int) -> None:
    points, centroids = draw(2, 4, 5000), draw(2, k, 4)
    codes = assign(points.cuda(), centroids.cuda())
    actual = error(points, Clusters(centroids, codes))
    assert actual == pytest.approx(error(points, Clusters(centroids, assign(points, centroids))))


def test_scalars() -> None:
    values = draw(500, 500)
    on_gpu, on_cpu = scalar_kmeans(values.cuda(), 16), scalar_kmeans(values, 16)
    torch.testing.assert_close(on_gpu.centroids.cpu(), on_cpu.centroids, rtol=1e-4, atol=1e-4)
    out = decode_scalar(on_gpu.codes, on_gpu.centroids, torch.empty(500, 500, device="cuda"))
    assert out.cpu().equal(on_gpu.centroids.cpu()[on_gpu.codes.cpu().long()])


def test_residuals() -> None:
    points = draw(1, 8, 4000)
    on_gpu = residual_kmeans(points.cuda(), 64, 2)
    on_cpu = residual_kmeans(points, 64, 2)

    def rebuilt(codes: Tensor, codebooks: Tensor) -> Tensor:
        return decode_residual(codes, codebooks, torch.empty(4000, 8, device=codes.device)).cpu()

    errors = [
        float((rebuilt(one.codes, one.codebooks) - points[0].T).square().sum())
        for one in (on_gpu, on_cpu)
    ]
    assert errors[0] <= 1.05 * errors[1]
    assert rebuilt(on_gpu.codes, on_gpu.codebooks).equal(
        rebuilt(on_gpu.codes.cpu(), on_gpu.codebooks.cpu())
    )
