"""Peak memory of networks that run from codes, beside the same networks with dense weights.

`python tests/benchmarks/memory_from_codes.py [MODEL ...]`: each network is compressed, saved, and
then loaded and run on one image in a process of its own, twice: decoded, and from codes. Peaks are
above what the process held before it loaded the network, in MB. Weights are random unless the
network is embedded.
"""

import json
import subprocess
import sys
import tempfile
from typing import Any

import timm

import vqzoo

MODELS = ("alexnet_mini.fmnist", "resnet50", "vit_base_patch16_224")
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("km", {"k": 16}),
    ("rtn", {"format": "int4"}),
    ("pq", {"d": 4, "k": 16}),
)
_WORKER = "vqzoo.network.bench.worker"


def peak(folder: str, mode: str, size: tuple[int, ...]) -> float:
    """MB above what is held before loading."""
    task = {
        "kind": mode, "path": folder, "plugins": [], "batches": [1], "repeats": 2, "threads": 1,
        "size": size,
    }  # fmt: skip
    words = [sys.executable, "-m", _WORKER, json.dumps(task)]
    for _ in range(2):  # the first run compiles kernels
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return float(result["peaks"][-1] - result["imported"]) / 1e6


def measure(name: str) -> None:
    """Print a line for each method."""
    model = timm.create_model(name, pretrained="." in name).eval()
    dense = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    size = model.pretrained_cfg["input_size"]
    for method, options in METHODS:
        small = vqzoo.compress(model, method, layers="all", **options)
        with tempfile.TemporaryDirectory() as folder:
            small.save(f"{folder}/a")
            decoded, codes = (peak(f"{folder}/a", mode, size) for mode in ("decoded", "codes"))
        share = codes / decoded
        print(
            f"{name}, {method} {options}: weights {dense:.1f}, decoded {decoded:.1f}, codes "
            f"{codes:.1f}, {share:.2f} of decoded, {codes / dense:.2f} of the weights",
            flush=True,
        )


if __name__ == "__main__":
    for model in sys.argv[1:] or MODELS:
        measure(model)
