"""`vqzoo import --from quanto`: state dicts of networks that optimum-quanto has quantized."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file
from vqzoo.progress import SilentWatcher

ARCHITECTURE = "test_resnet"
State = dict[str, Tensor]
# What a weight becomes: its parts in the file, and its values as the library decodes them.
Quantize = Callable[[Tensor, torch.Generator, torch.dtype], tuple[State, Tensor]]


def scales(count: int, weight: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A scale for each row, with as many axes as the codes."""
    values = torch.rand(count, generator=generator) * 0.01 + 0.01
    return values.reshape(-1, *[1] * (weight.dim() - 1)).to(dtype)


def bytes_of_rows(
    weight: Tensor, generator: torch.Generator, dtype: torch.dtype
) -> tuple[State, Tensor]:
    codes = torch.randint(-127, 128, weight.shape, generator=generator, dtype=torch.int8)
    scale = scales(len(weight), weight, generator, dtype)
    return {"_data": codes, "_scale": scale}, scale * codes


def small_floats(
    weight: Tensor, generator: torch.Generator, dtype: torch.dtype
) -> tuple[State, Tensor]:
    codes = torch.randn(weight.shape, generator=generator).to(torch.float8_e4m3fn)
    scale = scales(len(weight), weight, generator, dtype)
    return {"_data": codes, "_scale": scale}, scale * codes.to(dtype)


def packed(bits: int, *, whole: bool) -> Quantize:
    """Codes of a few bits, for groups of up to 96 columns where those divide a row."""

    def quantize(
        weight: Tensor, generator: torch.Generator, dtype: torch.dtype
    ) -> tuple[State, Tensor]:
        row = weight[0].numel()
        grid = weight.reshape(-1, 96) if row > 96 and row % 96 == 0 else weight
        codes = torch.randint(1 << bits, grid.shape, generator=generator)
        scale = scales(len(grid), grid, generator, dtype)
        if whole:
            shift = torch.randint(0, 1 << bits, scale.shape, generator=generator).to(torch.int8)
            values = scale * (codes - shift).to(dtype)
        else:
            shift = scale * 7.3
            values = scale * codes - shift
        count = -(-len(grid) * bits // 8)  # rows of bytes: a byte has codes of rows so far apart
        data = torch.zeros(count, *grid.shape[1:], dtype=torch.uint8)
        for place, code in enumerate(codes):
            data[place % count] |= (code << (place // count * bits)).to(torch.uint8)
        parts = {"_data._data": data, "_scale": scale, "_shift": shift}
        return parts, values.reshape(weight.shape)

    return quantize


def contents(quantize: Quantize, dtype: torch.dtype = torch.float32) -> tuple[State, State]:
    """A state dict as quanto has it, and the network's."""
    generator = torch.Generator().manual_seed(2)
    expected = timm.create_model(ARCHITECTURE).state_dict()
    content: State = {}
    for key, tensor in expected.items():
        if tensor.dim() < 2:
            content[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
            expected[key] = content[key].to(tensor.dtype)
            continue
        parts, values = quantize(tensor, generator, dtype)
        content |= {f"{key}.{part}": value for part, value in parts.items()}
        module = key.removesuffix(".weight")
        content |= {f"{module}.{side}_scale": torch.ones((), dtype=dtype) for side in SIDES}
        assert values.dtype == dtype
        expected[key] = values.float()
    return content, expected


SIDES = ("input", "output")
QUANTIZERS: dict[str, tuple[Quantize, str]] = {
    "int8": (bytes_of_rows, "rtn"),
    "float8": (small_floats, "km"),
    "int4": (packed(4, whole=False), "pq"),
    "int2": (packed(2, whole=False), "pq"),
    "int4 with zero points": (packed(4, whole=True), "rtn"),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_weights_are_what_torch_decodes(tmp_path: Path, name: str) -> None:
    quantize, method = QUANTIZERS[name]
    path = tmp_path / "small.safetensors"
    content, expected = contents(quantize)
    save_file(content, path)
    import_file(path, "quanto", ARCHITECTURE, tmp_path / "out")
    assert_same(tmp_path / "out", expected)
    layers = open_artifact(tmp_path / "out").metadata.layers
    assert len(layers) == 16
    assert {layer.code.method for layer in layers.values()} == {method}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_weights_in_half_precision_are_what_torch_decodes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "small.pth"
    content, expected = contents(QUANTIZERS[name][0], torch.float16)
    torch.save(content, path)
    import_file(path, "quanto", ARCHITECTURE, tmp_path / "out")
    assert_same(tmp_path / "out", expected)


def assert_same(out: Path, expected: State) -> None:
    state = vqzoo.load(out).state_dict()
    assert state.keys() == expected.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(state[key], tensor)] == []


class Listener(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_rounded_activations_are_dropped_and_told(tmp_path: Path) -> None:
    content, _ = contents(bytes_of_rows)
    for scale, lines in ((1.0, 0), (0.25, 1)):
        content["fc.input_scale"], said = torch.tensor(scale), Listener()
        save_file(content, tmp_path / "small.safetensors")
        path = tmp_path / "small.safetensors"
        import_file(path, "quanto", ARCHITECTURE, tmp_path / "out", watcher=said, force=True)
        assert len([line for line in said.lines if "rounds activations" in line]) == lines


def put(key: str, values: object) -> Callable[[State], None]:
    """Replace a tensor, or remove it."""

    def change(content: State) -> None:
        del content[key]
        if values is not None:
            content[key] = values  # type: ignore[assignment]

    return change


def another_layer(content: State) -> None:
    content["other.weight._data"] = content["fc.weight._data"]


def no_codes(content: State) -> None:
    for key in [key for key in content if key.endswith("_data")]:
        del content[key]


BYTES: dict[str, tuple[Callable[[State], None], str]] = {
    "no scale": (put("fc.weight._scale", None), r"fc\.weight has no scale"),
    "few scales": (put("fc.weight._scale", torch.ones(7, 1)), "has 7 scales for 1000 rows"),
    "bfloat16": (put("fc.weight._scale", torch.ones(1000, 1).bfloat16()), "torch.bfloat16, not"),
    "another shape": (put("fc.weight._data", torch.ones(3, 3).char()), r"has the shape \(3, 3\)"),
    "terabytes": (
        put("fc.weight._data", torch.ones(1).char().expand(10**12)),
        r"has the shape \(1000000000000,\), the network's is \(1000, 96\)",
    ),
    "int16": (put("fc.weight._data", torch.ones(1000, 96).short()), "is torch.int16"),
    "a text": (put("fc.weight._data", "text"), r"fc\.weight\._data is a str, not a plain"),
    "sparse": (put("fc.weight._data", torch.eye(9).to_sparse()), "not a plain tensor"),
    "a norm in float64": (put("bn1.weight", torch.ones(32).double()), "bn1.weight is torch.float6"),
    "no norm": (put("bn1.weight", None), "has no bn1.weight, which the network needs"),
    "another layer": (another_layer, r"other\.weight is quantized, and the network has no such"),
    "another tensor": (
        lambda content: content.update(extra=torch.ones(2)),
        "has extra, which the network does not",
    ),
    "no codes": (no_codes, "has no quantized weight"),
}
FEW_BITS: dict[str, tuple[Callable[[State], None], str]] = {
    "no shift": (put("fc.weight._shift", None), "has 1000 scales, and not as many shifts"),
    "other groups": (put("fc.weight._scale", torch.ones(999, 1)), "has 999 scales, and not"),
    "endless scales": (
        put("fc.weight._scale", torch.ones(1).expand(10**12)),
        "has 1000000000000 scales, and not",
    ),
    "no scales": (put("fc.weight._scale", torch.ones(0)), "has 0 scales, and not"),
    "half shifts": (put("fc.weight._shift", torch.ones(1000, 1).half()), "torch.float16, unlike"),
    "far shifts": (put("fc.weight._shift", torch.full((1000, 1), 999)), "shifts that are no bytes"),
    "few bytes": (
        put("fc.weight._data._data", torch.ones(499, 96).byte()),
        r"torch.uint8 \(499, 96\), not 1000 rows of 96 codes of 4 or 2 bits",
    ),
    "one byte": (put("fc.weight._data._data", torch.tensor(3).byte()), r"torch.uint8 \(\), not 10"),
    "short rows": (put("fc.weight._data._data", torch.ones(500, 95).byte()), r"\(500, 95\), not"),
    "signed bytes": (put("fc.weight._data._data", torch.ones(500, 96).char()), "torch.int8 "),
}
BAD = {name: (bytes_of_rows, *case) for name, case in BYTES.items()} | {
    name: (packed(4, whole=False), *case) for name, case in FEW_BITS.items()
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    quantize, change, message = BAD[case]
    content, _ = contents(quantize)
    change(content)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.pth", "quanto", ARCHITECTURE, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_codes_of_two_rows_do_not_say_how_many_bits_they_have(tmp_path: Path) -> None:
    content, _ = contents(bytes_of_rows)
    content["fc.weight._data._data"] = torch.ones(1, 96).byte()
    content["fc.weight._scale"] = content["fc.weight._shift"] = torch.ones(2, 1)
    content["fc.bias"] = torch.ones(2)
    torch.save(content, tmp_path / "two.pth")
    with pytest.raises(VqzooError, match=r"torch.uint8 \(1, 96\), not 2 rows of 96 codes"):
        import_file(
            tmp_path / "two.pth", "quanto", ARCHITECTURE, tmp_path / "out",
            model_args={"num_classes": 2},
        )  # fmt: skip
