"""Peak memory of networks that run from codes, beside the same networks with decoded weights.

`python tests/benchmarks/memory_from_codes.py [MODEL ...]`: each network is compressed by `km` with
k=16, saved, and then loaded and run on one image in two processes of its own, decoded and from
codes. Peaks are above what the process held before it loaded the network, in MB. Weights are random
unless the network is embedded. Run it twice: the first run may compile kernels.
"""

import json
import subprocess
import sys
import tempfile

import timm

import vqzoo

MODELS = ("alexnet_mini.fmnist", "resnet50", "vit_base_patch16_224")


def measure(name: str) -> None:
    """Print a line for each mode."""
    vqzoo.register_models()
    model = timm.create_model(name, pretrained="." in name).eval()
    dense = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        vqzoo.compress(model, "km", layers="all", k=16).save(f"{folder}/a")
        for kind in ("decoded", "codes"):
            task = {
                "kind": kind, "path": f"{folder}/a", "plugins": [], "batches": [1], "repeats": 1,
                "threads": 1, "size": model.pretrained_cfg["input_size"],
            }  # fmt: skip
            words = [sys.executable, "-m", "vqzoo.network.bench.worker", json.dumps(task)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            peak = (result["peaks"][-1] - result["imported"]) / 1e6
            print(f"{name}, {kind}: weights {dense:.1f}, peak {peak:.1f}", flush=True)


if __name__ == "__main__":
    for model in sys.argv[1:] or MODELS:
        measure(model)
