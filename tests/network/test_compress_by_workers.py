"""`vqzoo.compress(..., executor=)`: layers side by side, the same codes."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import vqzoo
from vqzoo.errors import UsageError, VqzooError

DIES = """
import os, signal
from vqzoo.plugin import Quantizer, hookimpl

class Dies(Quantizer):
    name = "dies"
    def quantize(self, weight, options, context):
        os.kill(os.getpid(), signal.SIGKILL)
    def reconstruct(self, code, params):
        return params["values"]

@hookimpl
def vqzoo_quantizers():
    return [Dies()]
"""


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit").eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "executor"),
    [
        ({"method": {"blocks.0.*": "svd", "head": ("pq", {"k": 4})}, "calibrate": True}, "local:2"),
        ({"method": "ecq,rtn", "lambda_": 1e-6, "layers": "blocks.0.attn*"}, "local:1"),
    ],
    ids=["calibrated", "price-of-a-bit"],
)
def test_workers_make_the_same_network(
    model: nn.Module, tmp_path: Path, arguments: dict[str, Any], executor: str
) -> None:
    if arguments.get("calibrate"):
        size = model.pretrained_cfg["input_size"]
        images = torch.randn(4, *size, generator=torch.Generator().manual_seed(1))
        arguments = arguments | {"calibrate": [images]}
    here = vqzoo.compress(model, **arguments)
    there = vqzoo.compress(model, **arguments, executor=executor)
    for small, folder in ((here, "here"), (there, "there")):
        small.save(tmp_path / folder)
    files = [tmp_path / folder / "vqzoo.safetensors" for folder in ("here", "there")]
    assert files[0].read_bytes() == files[1].read_bytes()
    weights = there.module.state_dict()
    for name, weight in here.module.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert [layer.layer.name for layer in there.layers] == [
        layer.layer.name for layer in here.layers
    ]


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_and_leaves_nothing(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.raises(VqzooError) as raised:
        vqzoo.compress(
            model, "dies", layers="head", plugins=[tmp_path / "dies.py"], executor="local:1"
        )
    assert str(raised.value) == (
        "layer head is not compressed: its process was ended by SIGKILL; it may have run out of "
        "memory"
    )
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_cannot_be_side_by_side_is_refused(model: nn.Module) -> None:
    size = model.pretrained_cfg["input_size"]
    images = [torch.zeros(1, *size)]
    with pytest.raises(UsageError, match=r"behind those before it; leave out one of the two"):
        vqzoo.compress(model, "ecq", calibrate=images, sequential=True, executor="local:2")
    with pytest.raises(UsageError, match=r"on CPUs, not on device='meta'; leave out one of the"):
        vqzoo.compress(model, "km", device="meta", executor="local:2")
    with pytest.raises(UsageError, match=r"no executor called 'lokal'"):
        vqzoo.compress(model, "km", executor="lokal")
