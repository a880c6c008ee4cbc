"""k-means on a CUDA device: vqzoo against flash-kmeans and fastkmeans, on AlexNet's fc6.

Data and results stay on the device, except fastkmeans's, whose interface takes and gives numpy
arrays. Every library makes at most 25 iterations from a start of its own and assigns every point.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from contenders import blocks, part_of, vectors
from report import Result
from torch import Tensor
from weights import weight

from vqzoo.numerics.clustering.kmeans import kmeans

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

LAYER = "alexnet.fc6"
ITERATIONS = 25
TASKS = {
    "cuda pq d=4 k=256": (blocks, 4, 256),
    "cuda shared d=8 k=256": (vectors, 8, 256),
    "cuda shared d=8 k=1024": (vectors, 8, 1024),
}
FASTKMEANS_SHARE = 1 / 64  # of pq's problems: it takes one at a time


def run_vqzoo(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = kmeans(points, k, iterations=ITERATIONS)
    return found.centroids, found.codes.long()


def run_vqzoo_on_all(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Trained on every point, as the others are."""
    found = kmeans(points, k, iterations=ITERATIONS, sample=points.shape[2])
    return found.centroids, found.codes.long()


def run_flash_kmeans(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    flash_kmeans = pytest.importorskip("flash_kmeans")
    rows = points.transpose(1, 2).contiguous()
    codes, centroids, _ = flash_kmeans.batch_kmeans_Euclid(rows, k, max_iters=ITERATIONS, tol=1e-4)
    return centroids, codes.long()


def run_fastkmeans(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    fastkmeans = pytest.importorskip("fastkmeans")
    centroids, codes = [], []
    for problem in points.transpose(1, 2).cpu().contiguous().numpy():
        model = fastkmeans.FastKMeans(points.shape[1], k, niter=ITERATIONS, tol=1e-4)
        codes.append(torch.from_numpy(model.fit_predict(problem)))
        centroids.append(torch.from_numpy(model.centroids))
    return torch.stack(centroids).to(points.device), torch.stack(codes).to(points.device)


LIBRARIES: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "vqzoo": run_vqzoo,
    "vqzoo, all": run_vqzoo_on_all,
    "flash-kmeans": run_flash_kmeans,
    "fastkmeans": run_fastkmeans,
}


def relative_error(points: Tensor, centroids: Tensor, codes: Tensor) -> float:
    index = codes[:, :, None].expand(-1, -1, points.shape[1])
    rebuilt = centroids.float().gather(1, index).transpose(1, 2)
    return float((rebuilt - points).double().square().sum() / points.double().square().sum())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("task", TASKS)
def test_cuda(
    benchmark: Callable[..., object], task: str, library: str, results: list[Result]
) -> None:
    cut, d, k = TASKS[task]
    matrix = weight(LAYER)
    points = cut(matrix, d).cuda()
    share = 1.0
    if library == "fastkmeans" and len(points) > 1:
        points = points[: part_of(matrix, d, FASTKMEANS_SHARE)]
        share = len(points) * d / matrix.shape[1]
    run = partial(LIBRARIES[library], points, k)
    run()  # kernels are compiled at their first use
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def timed() -> tuple[Tensor, Tensor]:
        found = run()
        torch.cuda.synchronize()
        return found

    centroids, codes = benchmark.pedantic(timed, rounds=3)
    peak = (torch.cuda.max_memory_allocated() - before) / (points.numel() * 4)
    error = relative_error(points, centroids, codes)
    seconds = benchmark.stats.stats.min / share
    results.append(
        Result(LAYER, task, library, seconds, error, peak if share == 1.0 else None, share)
    )
    assert 0.0 <= error < 1.0
