"""`vqzoo import` of files that `torch.save` wrote: kill-the-bits, permute-quantize-finetune."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vqzoo
from tests.importers.layouts import ARCHITECTURE, kill_the_bits, permute_quantize_finetune
from vqzoo.errors import UsageError, VqzooError
from vqzoo.network.import_file import import_file


def assert_same(network: nn.Module, expected: dict[str, Tensor]) -> None:
    state = network.state_dict()
    assert state.keys() == expected.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(state[key], tensor)] == []


def read(path: Path, kind: str, out: Path, **options: Any) -> nn.Module:
    import_file(path, kind, ARCHITECTURE, out, **options)
    return vqzoo.load(out)


@pytest.mark.parametrize("packing", [None, "ans"])
def test_kill_the_bits_is_decoded_bit_for_bit(tmp_path: Path, packing: str | None) -> None:
    path = tmp_path / "small.pth"
    expected = kill_the_bits(path)
    network = read(path, "kill-the-bits", tmp_path / "out", packing=packing)
    assert_same(network, expected)
    size = (tmp_path / "out" / "vqzoo.safetensors").stat().st_size
    assert size <= path.stat().st_size


@pytest.mark.parametrize("statistics", [True, False])
def test_permute_quantize_finetune_is_decoded_bit_for_bit(tmp_path: Path, statistics: bool) -> None:
    path = tmp_path / "small.pth"
    expected = permute_quantize_finetune(path, statistics=statistics)
    assert_same(read(path, "permute-quantize-finetune", tmp_path / "out"), expected)


def test_the_result_says_how_large_both_files_are(tmp_path: Path) -> None:
    path, out = tmp_path / "small.pth", tmp_path / "out"
    kill_the_bits(path)
    made = import_file(path, "kill-the-bits", ARCHITECTURE, out)
    assert made.layers == 15
    assert made.source_bytes == path.stat().st_size
    assert made.file_bytes == (out / "vqzoo.safetensors").stat().st_size


Change = Callable[[dict[str, Any]], None]


def set_field(layer: str, field: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        content[layer][field] = value

    return change


def above_the_codebook(content: dict[str, Any]) -> None:
    content["fc"]["assignments"][5] = 512


def below_zero(content: dict[str, Any]) -> None:
    content["fc"]["assignments"][5] = -1


def not_finite(content: dict[str, Any]) -> None:
    content["fc"]["centroids"][0, 0] = float("inf")


def terabytes(content: dict[str, Any]) -> None:
    content["fc"]["assignments"] = torch.zeros(1, dtype=torch.uint8).expand(10**12)


def wide_codebook(content: dict[str, Any]) -> None:
    content["fc"]["centroids"] = torch.zeros(1).half().expand(10**9, 4)


BAD_LAYERS: dict[str, tuple[Change, str]] = {
    "code above the codebook": (above_the_codebook, "fc: codes 0..512 for a codebook of 512"),
    "negative code": (below_zero, "fc: codes -1..511 for a codebook of 512"),
    "infinite centroid": (not_finite, "on fc.weight, part 'codebook' holds NaN or infinite"),
    "terabytes of codes": (terabytes, r"fc: \(1000000000000,\) assignments are not n_blocks=24"),
    "a huge codebook": (wide_codebook, "fc: a codebook of 1000000000 × 4 does not fit"),
    "other blocks": (set_field("fc", "n_blocks", 23), "assignments are not n_blocks=23 times"),
    "blocks as text": (set_field("fc", "n_blocks", "24"), "assignments are not n_blocks='24'"),
    "another kernel": (set_field("layer1.0.conv1", "k", 5), r"kernel \(5, 5\), .* is \(3, 3\)"),
    "a Linear as conv": (set_field("fc", "is_conv", True), r"fc is for a kernel \(1, 1\)"),
    "codes as floats": (set_field("fc", "assignments", torch.zeros(24000)), "are no integers"),
    "centroids as a list": (set_field("fc", "centroids", [1.0]), "are not tensors"),
    "double centroids": (
        set_field("fc", "centroids", torch.zeros(512, 4, dtype=torch.float64)),
        "fc: the codebook is not a matrix of floats",
    ),
    "a lacking field": (lambda content: content["fc"].pop("k"), "fc has no k"),
    "a lacking layer": (lambda content: content.pop("fc"), "has no fc.weight, which the network"),
    "a lacking norm": (lambda content: content.pop("bn1"), "has no bn1.weight"),
    "an unknown layer": (
        lambda content: content.update(fd=content["fc"]),
        "fd is compressed, and the network has no such layer",
    ),
    "an unknown tensor": (
        lambda content: content.update(extra={"weight": torch.zeros(1)}),
        "has extra.weight, which the network does not",
    ),
    "another shape": (
        lambda content: content["bn1"].update(bias=torch.zeros(3)),
        r"bn1.bias has the shape \(3,\), not \(32,\)",
    ),
    "values beyond float32": (
        lambda content: content["bn1"].update(bias=torch.full((32,), 0.1, dtype=torch.float64)),
        "bn1.bias is torch.float64, and torch.float32 cannot hold its values",
    ),
    "a number for a layer": (lambda content: content.update(fc=3), "fc is a int, not a layer"),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = BAD_LAYERS[case]
    path = tmp_path / "bad.pth"
    kill_the_bits(path, change)
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(path, "kill-the-bits", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


BAD_CODES: dict[str, tuple[Change, str]] = {
    "no codebook": (lambda content: content.pop("fc.codebook"), "fc has codes but no codebook"),
    "codes in one row": (
        lambda content: content.update({"fc.codes_matrix": torch.zeros(24000).byte()}),
        r"fc: codes of shape \(24000,\) are no matrix",
    ),
    "turned codes": (
        lambda content: content.update({"fc.codes_matrix": content["fc.codes_matrix"].T}),
        r"fc: its codes are no integers for 24 blocks of 1000 rows, but \(1000, 24\) uint8",
    ),
    "a number": (lambda content: content.update(epoch=3), "epoch is a int, not a tensor"),
    "one statistic": (
        lambda content: content.pop("bn1.running_var"),
        "has no bn1.running_var, which the network needs",
    ),
}


@pytest.mark.parametrize("case", BAD_CODES)
def test_flat_files_that_do_not_fit_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = BAD_CODES[case]
    path = tmp_path / "bad.pth"
    permute_quantize_finetune(path, change, statistics=True)
    with pytest.raises(VqzooError, match=message):
        import_file(path, "permute-quantize-finetune", ARCHITECTURE, tmp_path / "out")


class Opens:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("kind", ["kill-the-bits", "permute-quantize-finetune"])
def test_objects_are_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "hostile.pth", {"fc": Opens(tmp_path / "ran")}
    for write in (
        lambda: torch.save(content, path),
        lambda: pickle.dump(content, path.open("wb"), 2),
    ):
        write()
        with pytest.raises(
            VqzooError, match=r"read: it holds .*; tensors, numbers and texts alone"
        ):
            import_file(path, kind, ARCHITECTURE, tmp_path / "out")
        assert not (tmp_path / "ran").exists()


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "bad.pth"
    kill_the_bits(whole)
    data = whole.read_bytes()
    for damaged in (b"", data[:10], data[: len(data) // 2], data[:-1], b"PK" + data[100:]):
        path.write_bytes(damaged)
        with pytest.raises(VqzooError, match=r"bad\.pth cannot be read: ") as refused:
            import_file(path, "kill-the-bits", ARCHITECTURE, tmp_path / "out")
        assert "\n" not in str(refused.value)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save([1, 2], path)
    with pytest.raises(VqzooError, match="holds a list, not a mapping"):
        import_file(path, "kill-the-bits", ARCHITECTURE, tmp_path / "out")
    torch.save({}, path)
    with pytest.raises(VqzooError, match="has no compressed layer"):
        import_file(path, "kill-the-bits", ARCHITECTURE, tmp_path / "out")
    with pytest.raises(UsageError, match=r"nothing\.pth does not exist"):
        import_file(tmp_path / "nothing.pth", "kill-the-bits", ARCHITECTURE, tmp_path / "out")
