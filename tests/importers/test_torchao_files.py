"""`vqzoo import --from torchao`: safetensors files with the tensor subclasses of torchao."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

ARCHITECTURE = "test_vit"
Tensors = dict[str, Tensor]
Metadata = dict[str, Any]
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def described(kind: str, block: tuple[int, int], dtype: str = "float32", **more: Any) -> Metadata:
    """What torchao's metadata says of a quantized tensor."""
    data = {"block_size": list(block), "dtype": {"_type": "torch.dtype", "_data": dtype}, **more}
    return {"_type": kind, "_data": data, "_tensor_data_names": ["qdata", "scale", "zero_point"]}


def contents(dtype: str = "float32") -> tuple[Tensors, Metadata, dict[str, Tensor]]:
    """Tensors and metadata of a network whose Linear layers are quantized in four ways, and the
    weights that numpy decodes, rounded once to a dtype. In bfloat16, scales are, too."""
    random, tensors, metadata, expected = np.random.default_rng(0), {}, {}, {}
    for key, tensor in timm.create_model(ARCHITECTURE).state_dict().items():
        if tensor.dim() != 2:
            tensors[key], metadata[key] = tensor.to(HALVES.get(dtype)), {"_type": "Tensor"}
            continue
        m, n = tensor.shape
        block, top, kind = (1, n), 128, "Int8Tensor"
        if "qkv" in key:
            block, top, kind = (1, 16), 8, "IntxUnpackedToInt8Tensor"
        elif "fc1" in key:
            block = (m, n)
        shape = (m // block[0], n // block[1])
        codes = random.integers(-top, top, size=(m, n)).astype(np.int8)
        scale = random.uniform(0.01, 0.02, size=shape).astype(np.float32)
        if dtype == "bfloat16":
            scale = torch.from_numpy(scale).bfloat16().float().numpy()
        zero = random.integers(-3, 4, size=shape).astype(np.int8)
        if "proj" in key:
            parts, kind = floats_of_rows(random, m, n), "Float8Tensor"
            values = parts["qdata"].float() * parts["scale"]
            expected[key] = values.to(HALVES.get(dtype)).float()
            tensors |= {f"{key.removesuffix('.weight')}._weight_{k}": v for k, v in parts.items()}
            metadata[key] = described(kind, block, dtype)
            continue
        spread = [np.repeat(np.repeat(part, block[0], 0), block[1], 1) for part in (scale, zero)]
        values = (codes.astype(np.float32) - spread[1].astype(np.float32)) * spread[0]
        expected[key] = torch.from_numpy(values).to(HALVES.get(dtype)).float()
        module = key.removesuffix(".weight")
        arrays = {"qdata": codes, "scale": scale, "zero_point": zero}
        parts = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if dtype == "bfloat16":
            parts["scale"] = parts["scale"].bfloat16()
        tensors |= {f"{module}._weight_{name}": part for name, part in parts.items()}
        metadata[key] = described(kind, block, dtype)
    return tensors, metadata, expected


def floats_of_rows(random: np.random.Generator, m: int, n: int) -> Tensors:
    """Floats of 8 bits, of which a network in half precision can hold a table for each row, with a
    scale for each row."""
    few = torch.from_numpy(random.normal(size=9).astype(np.float32)).to(torch.float8_e4m3fn)
    codes = few.view(torch.uint8)[torch.from_numpy(random.integers(9, size=(m, n)))]
    scale = random.uniform(0.01, 0.02, size=(m, 1)).astype(np.float32)
    return {"qdata": codes.view(torch.float8_e4m3fn), "scale": torch.from_numpy(scale)}


def save(path: Path, tensors: Tensors, metadata: Metadata) -> None:
    """Write a file as torchao does."""
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    save_file(tensors, path, metadata={"tensor_names": json.dumps(list(metadata))} | texts)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_what_numpy_decodes(tmp_path: Path, dtype: str) -> None:
    tensors, metadata, expected = contents(dtype)
    save(tmp_path / "small.safetensors", tensors, metadata)
    import_file(tmp_path / "small.safetensors", "torchao", ARCHITECTURE, tmp_path / "out")
    state = vqzoo.load(tmp_path / "out").state_dict()
    assert open_artifact(tmp_path / "out").metadata.layers.keys() == expected.keys()
    assert all(torch.equal(state[key], weight) for key, weight in expected.items())
    rest = state.keys() - expected.keys()
    assert rest
    assert all(torch.equal(state[key], tensors[key].float()) for key in rest)


def no_scale(tensors: Tensors, metadata: Metadata) -> None:
    del tensors["head._weight_scale"]


def few_scales(tensors: Tensors, metadata: Metadata) -> None:
    tensors["head._weight_scale"] = torch.ones(7, 1)


def half(tensors: Tensors, metadata: Metadata) -> None:
    tensors["head._weight_scale"] = tensors["head._weight_scale"].half()


def other_shape(tensors: Tensors, metadata: Metadata) -> None:
    tensors["head._weight_qdata"] = torch.ones(3, 3, dtype=torch.int8)


def smooth(tensors: Tensors, metadata: Metadata) -> None:
    tensors["head._weight_act_pre_scale"] = torch.ones(64)


def double(tensors: Tensors, metadata: Metadata) -> None:
    metadata["head.weight"] = described("Int8Tensor", (1, 64), "float64")


def far_in_bfloat16(tensors: Tensors, metadata: Metadata) -> None:
    """Differences beyond 256, which torchao rounds."""
    metadata["head.weight"] = described("Int8Tensor", (1, 64), "bfloat16")
    tensors["head._weight_zero_point"] = torch.full((1000, 1), 300)


FLOATS = "blocks.0.attn.proj"


def zeros_of_floats(tensors: Tensors, metadata: Metadata) -> None:
    tensors[f"{FLOATS}._weight_zero_point"] = torch.zeros(64, 1).char()


def integers_for_floats(tensors: Tensors, metadata: Metadata) -> None:
    tensors[f"{FLOATS}._weight_qdata"] = torch.zeros(64, 64).char()


def no_number(tensors: Tensors, metadata: Metadata) -> None:
    codes = tensors[f"{FLOATS}._weight_qdata"].view(torch.uint8)
    codes[3, 3] = 0x7F


def float_zeros(tensors: Tensors, metadata: Metadata) -> None:
    tensors["head._weight_zero_point"] = tensors["head._weight_zero_point"].float()


def far_zeros(tensors: Tensors, metadata: Metadata) -> None:
    zeros = torch.zeros(1000, 1, dtype=torch.int64)
    zeros[5] = 2**40
    tensors["head._weight_zero_point"] = zeros


def odd_blocks(tensors: Tensors, metadata: Metadata) -> None:
    metadata["head.weight"] = described("Int8Tensor", (2, 64))


def no_blocks(tensors: Tensors, metadata: Metadata) -> None:
    metadata["head.weight"] = described("Int8Tensor", (1, 0))


def nothing_said(tensors: Tensors, metadata: Metadata) -> None:
    metadata["head.weight"] = {"_type": "Int8Tensor", "_data": 3}


def other_kind(tensors: Tensors, metadata: Metadata) -> None:
    metadata["head.weight"]["_type"] = "NVFP4Tensor"


def other_layer(tensors: Tensors, metadata: Metadata) -> None:
    metadata["other.weight"] = metadata["head.weight"]


def other_tensor(tensors: Tensors, metadata: Metadata) -> None:
    tensors["other"], metadata["other"] = torch.ones(3), {"_type": "Tensor"}


def missing_tensor(tensors: Tensors, metadata: Metadata) -> None:
    del tensors["head.bias"]


BAD: dict[str, tuple[Callable[[Tensors, Metadata], None], str]] = {
    "no scale": (no_scale, r"head\.weight has no scale"),
    "few scales": (few_scales, r"7 scales, not those of \(1000, 1\) blocks"),
    "half precision": (half, r"head\.weight is computed in"),
    "double precision": (double, r"head\.weight is computed in 'float64'"),
    "zero points that bfloat16 rounds": (far_in_bfloat16, "far from its integers"),
    "floats with zero points": (zeros_of_floats, "floats with zero points"),
    "integers for floats": (integers_for_floats, r"torch.int8 \(64, 64\), not float8_e4m3fn \(64"),
    "a float that is no number": (no_number, "proj.weight.* holds NaN"),
    "another shape": (other_shape, r"torch\.int8 \(3, 3\), not int8 \(1000, 64\)"),
    "scaled inputs": (smooth, "scales its inputs, which is not imported"),
    "zero points that are floats": (float_zeros, "zero points that are torch.float32"),
    "far zero points": (far_zeros, "zero points that are far from its integers"),
    "blocks of two rows": (odd_blocks, "blocks of 2 × 64"),
    "empty blocks": (no_blocks, "blocks of 1 × 0"),
    "nothing said": (nothing_said, r"its metadata 'head\.weight' is malformed"),
    "another kind": (other_kind, "is a 'NVFP4Tensor', which is not imported"),
    "another layer": (other_layer, r"other\.weight is quantized, and the network has no"),
    "another tensor": (other_tensor, "the network has no other"),
    "a missing tensor": (missing_tensor, r"the file has no head\.bias"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    tensors, metadata, _ = contents()
    change(tensors, metadata)
    save(tmp_path / "bad.safetensors", tensors, metadata)
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.safetensors", "torchao", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"a": torch.ones(3)}, tmp_path / "plain.safetensors")
    for name, message in (("text", "is no safetensors file"), ("plain", "is no file of torchao")):
        with pytest.raises(VqzooError, match=message) as refused:
            import_file(tmp_path / f"{name}.safetensors", "torchao", ARCHITECTURE, tmp_path / "out")
        assert "\n" not in str(refused.value)
