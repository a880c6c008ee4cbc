"""Loading from a repository takes the memory of the model once, not twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import vqzoo
from vqzoo.hub.repository import push
from vqzoo.testing.hub.server import HubServer

# The small artifact brings in every module and kernel first, so that only the model counts.
MEASURE = """
import json, re, sys
from pathlib import Path

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

import vqzoo
vqzoo.load(sys.argv[1])
before = peak()
model = vqzoo.load(sys.argv[2])
print(json.dumps([peak() - before, sum(t.nbytes for t in model.state_dict().values())]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is Linux's VmHWM")
def test_pulling_and_loading_takes_the_memory_of_one_model(hub: HubServer, tmp_path: Path) -> None:
    vqzoo.register_models()
    torch.manual_seed(0)
    for name, model in (("small", "test_resnet"), ("large", "alexnet")):  # 61 million parameters
        compressed = vqzoo.compress(timm.create_model(model), "km", layers="all", k=16)
        compressed.save(tmp_path / name)
    push(tmp_path / "large", "org/large")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "small"), "org/large"],
        env={**os.environ, **hub.environment(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken, dense = json.loads(done.stdout)
    assert dense > 240e6
    # fc6 alone is 0.62 of it: one copy of that layer beside the model would be past the bound.
    assert 0.9 * dense < taken < 1.55 * dense, taken / dense
