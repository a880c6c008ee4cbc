"""vqzoo and its peers on the same matrices: time, error, peak memory."""

from collections.abc import Callable
from functools import partial
from timeit import Timer

import contenders as c
import pytest
from report import PeakMemory, Result
from torch import Tensor
from weights import SHAPES, weight

Contender = Callable[[Tensor], c.Error]

SHORT = 1.0  # seconds

# Of the peers that would take minutes, the share of the problem that they are given.
SCALAR = {
    "vqzoo": (c.scalar_vqzoo, 1.0),
    "faiss": (c.scalar_faiss, 1.0),
    "coremltools": (c.scalar_coremltools, 1.0),
    "kmeans1d": (c.scalar_kmeans1d, 1 / 256),
}
PQ = {
    "vqzoo": (c.pq_vqzoo, 1.0),
    "scikit-learn": (c.pq_sklearn, 1 / 64),
    "faiss": (c.pq_faiss, 1 / 64),
}
SHARED = {"vqzoo": (c.shared_vqzoo, 1.0), "faiss": (c.shared_faiss, 1.0)}
RQ = {"vqzoo": (c.rq_vqzoo, 1.0), "faiss beam 5": (c.rq_faiss, 1.0)}
ALONE = {"vqzoo": (c.pq_vqzoo, 1.0)}
EXACT = {"vqzoo": (c.scalar_exact, 1.0)}
TASKS = {
    "scalar k=16": (SCALAR, {"k": 16}),
    "scalar k=256": (SCALAR, {"k": 256}),
    "scalar exact k=16": (EXACT, {"k": 16}),
    "scalar exact k=256": (EXACT, {"k": 256}),
    "pq d=4 k=256": (PQ, {"d": 4, "k": 256}),
    "pq d=4 k=256, 25 sweeps": (ALONE, {"d": 4, "k": 256, "tolerance": -1.0}),
    "shared d=8 k=256": (SHARED, {"d": 8, "k": 256}),
    "shared d=8 k=1024": (SHARED, {"d": 8, "k": 1024}),
    "rq d=8 k=256 t=2": (RQ, {"d": 8, "k": 256, "stages": 2}),
    "rq d=8 k=256 t=3": (RQ, {"d": 8, "k": 256, "stages": 3}),
}
CASES = [
    (layer, task, library)
    for layer in SHAPES
    for task, (who, _) in TASKS.items()
    for library in who
]


@pytest.mark.parametrize(("layer", "task", "library"), CASES)
def test_clustering(
    benchmark: Callable[..., object], layer: str, task: str, library: str, results: list[Result]
) -> None:
    libraries, options = TASKS[task]
    function, share = libraries[library]
    if share < 1.0:
        options = options | {"share": share}
    run = partial(function, **options)
    matrix = weight(layer)
    if library == "vqzoo":
        run(weight("vit_b.mlp"))  # compiled kernels are kept on disk: time the runs after the first
    memory = PeakMemory()

    def watched() -> c.Error:
        with memory:
            return run(matrix)

    error = benchmark.pedantic(watched, rounds=1)
    seconds = benchmark.stats.stats.min
    if seconds < SHORT:  # noise is large beside it: the best of three
        seconds = min(seconds, *Timer(lambda: run(matrix)).repeat(2, 1))
    seconds /= share
    # What a part leaves out of the peak is unknown: only whole problems report one.
    peak = memory.peak / (matrix.numel() * 4) if share == 1.0 else None
    results.append(Result(layer, task, library, seconds, error(), peak, share))
    assert 0.0 <= results[-1].error < 1.0
