"""`vqzoo.load(..., mode="codes")`: the same network, without its dense weights."""

import copy
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from vqzoo_vq.kmeans import ScalarKMeans

import vqzoo
from vqzoo.compression.coded_layer import CodedLayer, run_from_code
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.network.without_weights import weights_on_meta
from vqzoo.plugin import Code
from vqzoo.plugin.manager import installed_plugins

METHODS = {
    "km": {"k": 16},
    "pq": {"k": 16, "d": 4},
    "rq": {"k": 16, "d": 4, "stages": 2},
    "binary": {},
    "rtn": {"format": "int4"},
    "deep-compression": {},
    "svd": {"rank": 4},
    "ecq": {"price": 1e-3, "transform": "cosine"},
}


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # timm starts residual branches at zero
    return model


def images(model: nn.Module) -> torch.Tensor:
    return torch.randn(2, *model.pretrained_cfg["input_size"])


@pytest.mark.parametrize("method", METHODS)
def test_logits_agree_with_the_decoded_network(
    method: str, resnet: nn.Module, tmp_path: Path
) -> None:
    vqzoo.compress(resnet, method, layers="all", **METHODS[method]).save(tmp_path / "a")
    decoded = vqzoo.load(tmp_path / "a")
    coded = vqzoo.load(tmp_path / "a", mode="codes")
    x = images(resnet)
    expected, found = decoded(x), coded(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_other_families_run_from_codes(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name, num_classes=3).eval()
    vqzoo.compress(model, "pq", layers="all", k=8, d=2).save(tmp_path / "a")
    x = images(model)
    expected = vqzoo.load(tmp_path / "a")(x)
    found = vqzoo.load(tmp_path / "a", mode="codes")(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_no_dense_weight_of_a_compressed_layer_is_held(resnet: nn.Module, tmp_path: Path) -> None:
    small = vqzoo.compress(resnet, "km", layers="all", k=16)
    small.save(tmp_path / "a")
    coded = vqzoo.load(tmp_path / "a", mode="codes")
    layers = {name: m for name, m in coded.named_modules() if isinstance(m, CodedLayer)}
    assert set(layers) == {layer.layer.name for layer in small.layers}
    held = sum(t.numel() for t in (*coded.parameters(), *coded.buffers()))
    compressed = sum(layer.layer.numel for layer in small.layers)
    dense = sum(t.numel() for t in resnet.state_dict().values())
    assert held < dense - compressed + 20 * len(layers) + sum(
        layer.layer.shape[0] for layer in small.layers
    )


# The small artifact brings in every module and kernel first, so that only the model counts.
MEASURE = """
import re, sys
from pathlib import Path
import vqzoo

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

vqzoo.load(sys.argv[1], mode="codes")
before = peak()
vqzoo.load(sys.argv[2], mode="codes")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is Linux's VmHWM")
def test_loading_never_takes_the_memory_of_the_dense_weights(tmp_path: Path) -> None:
    model = timm.create_model("vit_small_patch16_224", num_classes=2)  # 22 million parameters
    dense = sum(p.nbytes for p in model.parameters())
    for name, network in (("small", timm.create_model("test_vit")), ("large", model)):
        vqzoo.compress(network, "rtn", layers="all", format="int4").save(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")],
        # What is let go is given back at once: the peak is of what is held.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Codes of four bits take an eighth, and a few rows are decoded at a time to be checked.
    assert 0.12 * dense < int(done.stdout) < 0.3 * dense, int(done.stdout) / dense


PAGES = """
import resource, sys
import torch
import vqzoo

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.set_num_threads(1)
network = vqzoo.load(sys.argv[1], mode="codes")
images = torch.randn(1, 3, 320, 320)
with torch.inference_mode():
    for _ in range(3):
        network(images)
    before = faults()
    for _ in range(4):
        network(images)
print((faults() - before) // 4)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back")
def test_a_pass_uses_the_memory_that_the_last_one_freed(resnet: nn.Module, tmp_path: Path) -> None:
    vqzoo.compress(resnet, "km", layers="all", k=2).save(tmp_path / "a")
    done = subprocess.run(
        [sys.executable, "-c", PAGES, str(tmp_path / "a")],
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400  # pages; its maps take 2,000


def test_what_would_decode_to_nan_is_refused(
    resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqzoo.compress(resnet, "km", layers="all", k=4).save(tmp_path / "a")

    def decoded(self: ScalarKMeans, code: Code, *_: object) -> torch.Tensor:
        return torch.full(code.shape, torch.nan)

    monkeypatch.setattr(ScalarKMeans, "decode", decoded)
    with pytest.raises(ArtifactError, match="decodes to NaN"):
        vqzoo.load(tmp_path / "a", mode="codes")


def test_modules_made_meanwhile_elsewhere_keep_their_weights() -> None:
    with weights_on_meta():
        assert nn.Linear(2, 2).weight.is_meta
        tied = nn.Linear(2, 2)
        tied.weight = nn.Parameter(torch.ones(2, 2))
        assert not tied.weight.is_meta
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(nn.Linear, 2, 2).result().weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_a_coded_network_moves_and_stays_out_of_the_graph(
    resnet: nn.Module, tmp_path: Path
) -> None:
    vqzoo.compress(resnet, "pq", k=16, d=4).save(tmp_path / "a")
    coded = vqzoo.load(tmp_path / "a", mode="codes")
    assert not any(p.requires_grad for p in coded.parameters())
    on_meta = coded.to("meta")
    layer = next(m for m in on_meta.modules() if isinstance(m, CodedLayer))
    assert layer._compressed.code.indices("codes").device.type == "meta"


def test_a_coded_network_is_copied_and_takes_another_dtype(
    resnet: nn.Module, tmp_path: Path
) -> None:
    vqzoo.compress(resnet, "pq", layers="all", k=16, d=4).save(tmp_path / "a")
    coded = vqzoo.load(tmp_path / "a", mode="codes")
    x = images(resnet)
    expected = coded(x)
    wide = copy.deepcopy(coded).double()
    found = wide(x.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)
    narrow = copy.deepcopy(coded).bfloat16()
    assert narrow(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(coded(x), expected)


def test_params_train_and_the_code_follows(resnet: nn.Module) -> None:
    plugins = installed_plugins()
    small = vqzoo.compress(resnet, "pq", layers="dense", k=16, d=4)
    layer = small.layers[0]
    model = run_from_code(small.module, layer.layer.name, layer.compressed, plugins)
    coded = model.get_submodule(layer.layer.name)
    assert isinstance(coded, CodedLayer)
    before = coded.compressed.code.floats()["codebook"]
    coded.params.requires_grad_(True)
    x = images(resnet)
    model(x).square().mean().backward()
    gradient = coded.params["/codebook"].grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        expected = model(x)
        coded.params["/codebook"].mul_(2)
        changed = model(x)
    assert not torch.equal(expected, changed)
    assert torch.allclose(coded.compressed.code.floats()["codebook"], 2 * before, rtol=1e-3)


def test_a_network_that_is_one_layer() -> None:
    layer = nn.Linear(16, 8)
    small = vqzoo.compress(layer, "svd", rank=2)
    x = torch.randn(3, 5, 16)
    expected = small(x)
    coded = run_from_code(small.module, "", small.layers[0].compressed, installed_plugins())
    assert torch.allclose(coded(x), expected, atol=1e-5)


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="decoded, codes"):
        vqzoo.load(tmp_path, mode="fast")  # type: ignore[arg-type]
