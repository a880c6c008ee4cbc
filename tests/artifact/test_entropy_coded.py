"""Entropy-coded artifacts give the same network, are never larger, and cannot claim too much."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forging import take_apart
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.encode import encode_layer
from vqzoo.errors import ArtifactError
from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.plugin.code import Code, Indices, MethodCode
from vqzoo.plugin.manager import installed_plugins

CODED = pytest.mark.parametrize("packing", ["huffman", "ans"])


@pytest.fixture(scope="module")
def compressed() -> vqzoo.CompressedModel:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    rules = {"all": ("km", {"k": 20}), "layer4.*": ("pq", {"d": 4, "k": 16})}
    return vqzoo.compress(model, rules)


def saved(model: vqzoo.CompressedModel, folder: Path, packing: str) -> dict[str, Tensor]:
    model.save(folder / packing, packing=packing)
    return vqzoo.load(folder / packing).state_dict()


def index_parts(folder: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each integer part and the bytes of its tensor, read without vqzoo."""
    artifact = take_apart(folder)
    for key, entry in artifact.metadata["layers"].items():
        for name, part in entry["code"]["parts"].items():
            if part["kind"] == "indices":
                yield part, len(artifact.data[f"{key}::{name}"])


@CODED
def test_the_network_is_the_same_and_no_part_is_larger(
    compressed: vqzoo.CompressedModel, tmp_path: Path, packing: str
) -> None:
    plain, coded = (saved(compressed, tmp_path, name) for name in ("bits", packing))
    assert plain.keys() == coded.keys()
    assert all(plain[key].equal(coded[key]) for key in plain)
    sizes = {name: [size for _, size in index_parts(tmp_path / name)] for name in ("bits", packing)}
    assert all(b <= a for a, b in zip(sizes["bits"], sizes[packing], strict=True))
    assert sum(sizes[packing]) < sum(sizes["bits"])
    for part, size in index_parts(tmp_path / packing):
        width = max(1, (part["cardinality"] - 1).bit_length())
        fixed = -(-math.prod(part["shape"]) * width // 8)
        assert part["packing"] == (packing if size < fixed else "bits")


@CODED
@pytest.mark.parametrize(
    ("codes", "cardinality", "coded"),
    [
        (torch.arange(4096) % 16, 16, False),
        (torch.zeros(0, 7), 16, False),
        (torch.tensor([3]), 16, False),
        (torch.zeros(5), 1, False),
        (torch.zeros(4096), 1, True),
        (torch.full((64, 64), 65535), 65536, True),
        (torch.arange(4096) % 512 // 511, 2, True),
    ],
)
def test_fixed_width_is_used_if_entropy_coding_saves_nothing(
    packing: str, codes: Tensor, cardinality: int, coded: bool
) -> None:
    """A Huffman code of two symbols takes one bit per code, as fixed width does."""
    plugins = installed_plugins()
    parts = {"codes": Indices(codes.long(), cardinality)}
    code = MethodCode("km", Code((64, 64), parts))
    layer = encode_layer("fc.weight", (64, 64), torch.float32, code, {}, packing, plugins)
    part = layer.entry["code"]["parts"]["codes"]
    smaller = coded and not (packing == "huffman" and cardinality == 2)
    assert part["packing"] == (packing if smaller else "bits")
    stream = layer.tensors["fc.weight::codes"]
    unpacked = plugins.packings.get(part["packing"]).item.unpack(stream, cardinality, codes.numel())
    assert unpacked.long().equal(codes.reshape(-1).long())


def test_the_number_of_codes_that_a_few_bytes_claim_is_bounded(tmp_path: Path) -> None:
    """Codes of a single symbol take no bits, so the weights of the layer bound their number."""
    vqzoo.compress(timm.create_model("test_resnet", num_classes=10), "km", k=4).save(tmp_path / "a")
    forged = take_apart(tmp_path / "a")
    part = forged.layer()["code"]["parts"]["codes"]
    stream = bytes(ans.pack(torch.zeros(1000), part["cardinality"]).tolist())
    forged.set_tensor(forged.key() + "::codes", "U8", [len(stream)], stream)
    part |= {"packing": "ans", "packing_version": "1"}
    weights = math.prod(forged.layer()["shape"])
    vqzoo.load(forged.seal(tmp_path / "zeros"))
    for shape, message in (([1 << 33], "claims"), ([33, weights], "claims"), ([weights], "shape")):
        part["shape"] = shape
        with pytest.raises(ArtifactError, match=message):
            vqzoo.load(forged.seal(tmp_path / "claims"))


def test_the_record_holds_entropies(tmp_path: Path) -> None:
    from vqzoo.compression.compress import CompressedLayer
    from vqzoo.report.layer_record import codes_record

    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=10)
    layer: CompressedLayer = vqzoo.compress(model, "rq", k=8, d=4, stages=2).layers[0]
    code = layer.compressed.code
    encoded = encode_layer(
        "fc.weight", layer.layer.shape, torch.float32, layer.compressed, {}, "ans",
        installed_plugins(),
    )  # fmt: skip
    block = codes_record(code, encoded).to_dict()
    parts = [part for part in code.parts.values() if isinstance(part, Indices)]
    assert block == {
        "count": sum(part.values.numel() for part in parts),
        "stored_bits": 8 * sum(encoded.tensors[f"fc.weight::{n}"].numel() for n in code.parts
                               if isinstance(code.parts[n], Indices)),
        "fixed_bits": 3 * sum(part.values.numel() for part in parts),
        "entropy_bits": sum(entropy_bits(part.values, 8) for part in parts),
    }  # fmt: skip
    assert json.loads(json.dumps(block)) == block
