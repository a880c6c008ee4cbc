"""Products of layers that run from codes, beside torch's own.

`python tests/benchmarks/products_from_codes.py [--threads N] [LAYER ...]`, with names of `LAYERS`.
Figures are milliseconds: processor time of one thread, the least of several runs; of several
threads, the median time on the clock. All of a layer come from one process. Codes are random: time
does not depend on them.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.products.packed import packed
from vqzoo.numerics.coding.gaps import gaps_of
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin import Code, Floats, Indices, MethodCode
from vqzoo.plugin.manager import installed_plugins

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "fc6": (lambda: nn.Linear(9216, 4096), (9216,), (1, 2, 8, 16)),
    "vit_b.fc1": (lambda: nn.Linear(768, 3072), (197, 768), (1,)),
    "resnet50.1x1": (lambda: nn.Conv2d(1024, 2048, 1), (1024, 7, 7), (1, 8)),
    "resnet50.3x3": (lambda: nn.Conv2d(512, 512, 3, padding=1), (512, 7, 7), (1, 8)),
    "resnet50.14x14": (lambda: nn.Conv2d(256, 256, 3, padding=1), (256, 14, 14), (1,)),
    "resnet50.fc": (lambda: nn.Linear(2048, 1000), (2048,), (1,)),
}
_RUNS = 15


def codes(m: int, n: int) -> Iterator[tuple[str, MethodCode]]:
    """Codes of an (m, n) matrix by several methods, under the options that they stand for."""
    random = torch.Generator().manual_seed(0)

    def indices(k: int, *shape: int) -> Indices:
        values = torch.randint(0, k, shape, generator=random)
        return Indices(values.to(torch.uint8) if k <= 256 else values.int(), k)

    def floats(*shape: int) -> Floats:
        return Floats(torch.randn(shape, generator=random).half())

    scale = floats(m)
    for k in (16, 256, 4096):
        parts = {"codes": indices(k, m, n), "codebook": floats(k), "scale": scale}
        yield f"km k={k}", MethodCode("km", Code((m, n), parts))
    yield "binary", MethodCode("binary", Code((m, n), {"codes": indices(2, m, n), "scale": scale}))
    for bits in (4, 8):
        parts = {"codes": indices(2**bits - 1, m, n), "scale": floats(m, 1)}
        yield f"rtn int{bits}", MethodCode("rtn", Code((m, n), parts, {"group": n}))
    for d, k in ((4, 16), (4, 256), (8, 2048)):
        parts = {"codes": indices(k, n // d, m), "codebook": floats(1, k, d), "scale": scale}
        yield f"pq d={d} k={k}", MethodCode("pq", Code((m, n), parts, {"d": d, "axis": "columns"}))
    parts = {"codes": indices(256, n // 4, m), "codebook": floats(n // 4, 256, 4), "scale": scale}
    code = Code((m, n), parts, {"d": 4, "axis": "columns"})
    yield "pq d=4 k=256 block", MethodCode("pq", code)
    parts = {"codes": indices(256, m // 4, n), "codebook": floats(1, 256, 4), "scale": scale}
    yield "pq d=4 k=256 rows", MethodCode("pq", Code((m, n), parts, {"d": 4, "axis": "rows"}))
    parts = {"codes": indices(256, n // 8, 2, m), "codebook": floats(1, 2, 256, 8), "scale": scale}
    yield "rq d=8 k=256 t=2", MethodCode("rq", Code((m, n), parts, {"d": 8}))
    rank = m * n // (8 * (m + n))  # a sixteenth of the size of float32, as the next one
    yield (
        "svd",
        MethodCode("svd", Code((m, n), {"left": floats(m, rank), "right": floats(rank, n)})),
    )
    k = 2 * m * n // (m + n)
    parts = {"left": indices(2, m, k), "right": indices(2, k, n)}
    parts |= {"rows": floats(m), "core": floats(k), "columns": floats(n)}
    yield "diba", MethodCode("diba", Code((m, n), parts))
    for density in (0.1, 0.35):
        places = (torch.rand(m * n, generator=random) < density).nonzero()[:, 0]
        parts = {"gaps": Indices(gaps_of(places, 4), 16), "codebook": floats(256)}
        code = Code((m, n), {**parts, "codes": indices(256, len(places))})
        yield f"deep-compression {density:.0%}", MethodCode("deep-compression", code)
    parts = {"codes": indices(11, m, n), "steps": indices(16, m + n), "step": Floats(torch.ones(1))}
    yield "ecq", MethodCode("ecq", Code((m, n), parts, {"trellis": 1}))


def milliseconds(run: Callable[[], Tensor], threads: int) -> float:
    """The time of a run, after one that compiles kernels."""
    run()
    clock = time.thread_time if threads == 1 else time.perf_counter
    times = []
    for _ in range(_RUNS):
        started = clock()
        run()
        times.append(clock() - started)
    return 1e3 * (min(times) if threads == 1 else statistics.median(times))


def runs(name: str, batch: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Forward passes of a layer with as many inputs: torch's own, then one for each method."""
    make, shape, _ = LAYERS[name]
    plugins, x = installed_plugins(), torch.randn(batch, *shape)
    dense = make()
    yield "float32", partial(dense, x)
    yield "bfloat16", partial(make().bfloat16(), x.bfloat16())
    for method, code in codes(dense.weight.shape[0], dense.weight[0].numel()):
        yield method, partial(run_from_code(make(), "", packed(code, plugins), plugins), x)


def measure(name: str, threads: int) -> None:
    """Print a line for each batch size."""
    for batch in LAYERS[name][2]:
        times = [f"{what} {milliseconds(run, threads):.2f}" for what, run in runs(name, batch)]
        print(f"{name}, batch {batch}: {', '.join(times)}", flush=True)


def main() -> None:
    """Measure the layers that the command line names, or all."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("layers", nargs="*", default=list(LAYERS), metavar="LAYER")
    words.add_argument("--threads", type=int, default=1)
    options = words.parse_args()
    torch.set_num_threads(options.threads)
    with use_threads(options.threads), torch.inference_mode():
        for layer in options.layers:
            measure(layer, options.threads)


if __name__ == "__main__":
    main()
