"""Peak memory of networks that run from codes, beside the same networks with dense weights.

`python tests/benchmarks/memory_from_codes.py [MODEL ...]`: each network is compressed by `km` with
k=16, saved, and then loaded and run on one image in processes of their own: by timm alone (dense),
decoded, and from codes. Weights are random unless the network is embedded. In MB, above what the
process held before it loaded the network: the peak; how much of it is the process's own; and how
much is pages of files, nearly all of them the code of torch and LLVM, which processes share and the
system can drop. The last line of a network is from codes with glibc's allocator told to give back
at once what is freed. Run it twice: the first run may compile kernels.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import timm

import vqzoo
from vqzoo.network.export import export

MODELS = ("alexnet_mini.fmnist", "resnet50", "vit_base_patch16_224")


def measure(name: str) -> None:
    """Print a line for each mode."""
    vqzoo.register_models()
    model = timm.create_model(name, pretrained="." in name).eval()
    dense = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        vqzoo.compress(model, "km", layers="all", k=16).save(f"{folder}/a")
        export(Path(f"{folder}/a"), "dense", Path(f"{folder}/dense"))
        for kind, path, settings in (
            ("dense", "dense", {}),
            ("decoded", "a", {}),
            ("codes", "a", {}),
            ("codes", "a", {"MALLOC_MMAP_THRESHOLD_": "131072"}),
        ):
            task = {
                "kind": kind, "path": f"{folder}/{path}", "plugins": [], "batches": [1],
                "repeats": 1, "threads": 1, "size": model.pretrained_cfg["input_size"],
            }  # fmt: skip
            words = [sys.executable, "-m", "vqzoo.network.bench.worker", json.dumps(task)]
            environment = {**os.environ, **settings}
            done = subprocess.run(
                words, stdout=subprocess.PIPE, text=True, check=True, env=environment
            )
            result = json.loads(done.stdout.splitlines()[-1])
            peak, mapped = result["peaks"][-1] - result["imported"], result["mapped"]
            print(
                f"{name}, {' '.join([kind, *settings])}: weights {dense:.1f}, "
                f"peak {peak / 1e6:.1f}, own {(peak - mapped) / 1e6:.1f}, "
                f"files {mapped / 1e6:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    for model in sys.argv[1:] or MODELS:
        measure(model)
