"""Passes of networks that run from codes, beside the same networks decoded.

`python tests/benchmarks/networks_from_codes.py [--method NAME] [--threads N] [MODEL ...]`: each
network is compressed in all layers, saved, and loaded both ways into one process, where passes of
one image take turns, ten at a time. Weights are random unless the network is embedded. Times are
milliseconds on the clock, medians.
"""

import argparse
import statistics
import tempfile
import time

import timm
import torch
from torch import nn

import vqzoo
from vqzoo.numerics.threads import use_threads

MODELS = (
    "vit_base_patch16_224",
    "resnet50",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "alexnet_mini.fmnist",
)
_TURNS = 6
_PASSES = 10


def milliseconds(networks: dict[str, nn.Module], image: torch.Tensor) -> dict[str, float]:
    """The median time of a pass of each network."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_TURNS):
        for name, network in networks.items():
            network(image)  # caches are cold, and threads asleep
            for _ in range(_PASSES):
                started = time.perf_counter()
                network(image)
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in times.items()}


def measure(name: str, method: str, threads: int) -> None:
    """Print a line for a network."""
    model = timm.create_model(name, pretrained="." in name).eval()
    image = torch.randn(1, *model.pretrained_cfg["input_size"])
    with tempfile.TemporaryDirectory() as folder, use_threads(threads), torch.inference_mode():
        vqzoo.compress(model, method, layers="all").save(f"{folder}/a")
        modes = {"decoded": "decoded", "from codes": "codes"}
        loaded = {what: vqzoo.load(f"{folder}/a", mode=mode).eval() for what, mode in modes.items()}
        times = milliseconds(loaded, image)
    ratio = times["from codes"] / times["decoded"]
    words = ", ".join(f"{what} {each:.2f}" for what, each in times.items())
    print(f"{name}, {method}, {threads} threads: {words}, ratio {ratio:.2f}", flush=True)


def main() -> None:
    """Measure the networks that the command line names, or all."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    words.add_argument("--method", default="pq")
    words.add_argument("--threads", type=int, default=1)
    options = words.parse_args()
    vqzoo.register_models()
    for name in options.models:
        measure(name, options.method, options.threads)


if __name__ == "__main__":
    main()
