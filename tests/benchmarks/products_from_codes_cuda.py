"""Products of layers that run from codes on a CUDA device, beside cuBLAS's in float16.

`python tests/benchmarks/products_from_codes_cuda.py [LAYER ...]`, with names of the Linear layers
in `products_from_codes.LAYERS`. Every figure is the median of many runs by the device's clock, in
microseconds, with the caches cleared before each; layers and inputs are float16.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
from products_from_codes import LAYERS, codes
from torch import Tensor, nn

from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.products.packed import packed
from vqzoo.plugin.manager import installed_plugins

_RUNS = 50
_CACHES = 1 << 28  # bytes, more than any device's caches


def microseconds(run: Callable[[], Tensor]) -> float:
    """The median time of a run on the device, after runs that compile kernels."""
    for _ in range(3):
        run()
    clear = torch.empty(_CACHES, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(_RUNS):
        clear.zero_()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(1e3 * start.elapsed_time(stop))
    return statistics.median(times)


def measure(name: str) -> None:
    """Print a line for each batch size."""
    make, shape, _ = LAYERS[name]
    plugins, dense = installed_plugins(), make().half().cuda()
    if not isinstance(dense, nn.Linear):
        return
    for batch in (1, 2, 4, 8):
        x = torch.randn(batch, *shape).half().cuda()
        times = [f"cuBLAS {microseconds(partial(dense, x)):.1f}"]
        for method, code in codes(*dense.weight.shape):
            layer = run_from_code(make(), "", packed(code, plugins), plugins).half().cuda()
            times.append(f"{method} {microseconds(partial(layer, x)):.1f}")
        print(f"{name}, batch {batch}: {', '.join(times)}", flush=True)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device")
    print(torch.cuda.get_device_name())
    with torch.inference_mode():
        for layer in sys.argv[1:] or LAYERS:
            measure(layer)
