"""Networks that run from their codes hold no tensor as large as a dense weight at any time."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import vqzoo_diba.diba
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from vqzoo_diba.solver import DiagonalBinary

import vqzoo
from vqzoo.numerics.threads import use_threads

METHODS: dict[str, dict[str, Any]] = {
    "km": {"k": 16},
    "pq": {"k": 16, "d": 4},
    "rq": {"k": 16, "d": 4, "stages": 2},
    "binary": {},
    "rtn": {"format": "int4"},
    "prune": {},
    "deep-compression": {},
    "svd": {"rank": 48},
    "diba": {"k": 1000},  # factors as floats would be larger than the weights
    "ecq": {"price": 1e-3, "trellis": False},
    "ecq trellis": {"price": 1e-2},
}
LAYERS = ("blocks.0.attn.qkv", "patch_embed.proj")  # a Linear and a convolution, above a tile each


class LargestStorage(TorchDispatchMode):
    """The most bytes of any tensor that torch's operations return meanwhile."""

    bytes = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor) and value.device.type != "meta":
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return result


def largest(run: Callable[[], object]) -> int:
    """The most bytes of a tensor, or of all of numpy's arrays together."""
    tracemalloc.start()
    try:
        with use_threads(1), LargestStorage() as storage, torch.no_grad():
            run()
        return max(storage.bytes, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def any_factors(matrix: Tensor, k: int, **_: object) -> DiagonalBinary:
    """Factors of a matrix that were not fitted to it, which would take long."""
    m, n = matrix.shape
    left, right = (torch.randint(0, 2, size, dtype=torch.uint8) for size in ((m, k), (k, n)))
    return DiagonalBinary(torch.randn(m), left, torch.randn(k) / k, right, torch.randn(n))


@pytest.mark.parametrize("method", METHODS)
def test_no_tensor_is_as_large_as_a_dense_weight(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(vqzoo_diba.diba, "solve_diba", any_factors)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, in_chans=64, embed_dim=576, num_heads=6,
        depth=1, mlp_ratio=1, num_classes=7,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(torch.randn_like(module.weight) / 20)
    small = vqzoo.compress(model, method.split()[0], layers=list(LAYERS), **METHODS[method])
    small.save(tmp_path / "a")
    weights = [model.get_submodule(layer).weight for layer in LAYERS]
    smallest = min(weight.nbytes for weight in weights)
    decoded = vqzoo.load(tmp_path / "a")
    coded = vqzoo.load(tmp_path / "a", mode="codes")
    batches = [torch.randn(count, 64, 16, 16) for count in (1, 2)]  # 17 and 34 inputs of the Linear
    for images in batches:
        coded(images)  # may compile kernels, which takes memory of its own
    assert largest(lambda: vqzoo.load(tmp_path / "a", mode="codes")) < smallest
    for images in batches:
        assert largest(lambda images=images: coded(images)) < smallest  # type: ignore[misc]
        expected = decoded(images)
        assert (coded(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
