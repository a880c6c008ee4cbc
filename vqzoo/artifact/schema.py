"""Schema of the JSON in an artifact, format 1. Unknown keys are ignored, bounds are checked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vqzoo.plugin.limits import (
    MAX_CARDINALITY,
    MAX_DIMENSIONS,
    MAX_EXPONENT,
    MAX_FACT_LENGTH,
    MAX_NAME_LENGTH,
    MAX_NUMEL,
    PART_NAME,
    StorageDtype,
)

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "vqzoo.safetensors"
REPORT_FILE = "report.json"
BENCH_FILE = "bench.json"
DENSE_FILE = "model.safetensors"
CARD_FILE = "README.md"
PLOT_FILE = "bytes.png"
BUDGET_PLOT_FILE = "budget.png"
SEPARATOR = "::"
IMPORTED = "imported:"  # begins the source of weights that came from another library's file

MODEL_ARGUMENTS = "model-arguments"  # model_args beyond those of plain format 1
WEIGHTS_ONLY = "weights-only"  # no architecture: the weights of a network that the user builds
COMPACT = "compact"  # tensors and their descriptions are in one tensor each
FEATURES = frozenset({MODEL_ARGUMENTS, WEIGHTS_ONLY, COMPACT})  # that this reader has

Rest = Literal["float32", "float16"]  # how float32 tensors that stay dense are stored
Layout = Literal["plain", "compact"]  # of the weights file

_Size = Annotated[int, Field(ge=0, le=MAX_NUMEL, strict=True)]
_Shape = Annotated[tuple[_Size, ...], Field(max_length=MAX_DIMENSIONS)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
_PartName = Annotated[str, Field(pattern=f"^{PART_NAME}$")]
_FactText = Annotated[str, Field(max_length=MAX_FACT_LENGTH)]
_Fact = bool | Annotated[int, Field(strict=True)] | float | _FactText


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class IndicesEntry(_Entry):
    """Integer codes: a packed stream of `prod(shape)` codes, each below `cardinality`."""

    kind: Literal["indices"]
    shape: _Shape
    cardinality: Annotated[int, Field(ge=1, le=MAX_CARDINALITY, strict=True)]
    packing: _Name
    packing_version: _Name


class FloatsEntry(_Entry):
    """Floats: the values of a tensor in the file, times 2^exponent."""

    kind: Literal["floats"]
    shape: _Shape
    dtype: StorageDtype
    exponent: Annotated[int, Field(ge=-MAX_EXPONENT, le=MAX_EXPONENT, strict=True)]


PartEntry = Annotated[IndicesEntry | FloatsEntry, Field(discriminator="kind")]


class CodeEntry(_Entry):
    """A `Code` and the method that decodes it."""

    method: _Name
    method_version: _Name
    plugin: _Name
    plugin_version: _Name
    shape: tuple[_Size, _Size]
    facts: dict[_Name, _Fact] = {}
    parts: dict[_PartName, PartEntry] = {}
    children: dict[_PartName, "CodeEntry"] = {}


_Options = dict[str, bool | int | float | str | None]


class TransformEntry(_Entry):
    """A transform that ran before the method, with its options as used, for the record."""

    name: _Name
    options: _Options = {}


class LayerEntry(_Entry):
    """One compressed weight.

    Attributes:
        shape: of the dense tensor.
        dtype: of the dense tensor.
        view: (m, n) of the matrix that was compressed: the tensor with all axes but the first
            flattened.
        options: the method's options as used, for the record.
        transforms: the transforms that ran before the method, first one first, for the record.
        code: how to decode the weight.
        sha256: of the stored bytes of its parts, in the order of their sorted tensor keys.
    """

    shape: _Shape
    dtype: StorageDtype | Literal["float64"]
    view: tuple[_Size, _Size]
    options: _Options = {}
    transforms: list[TransformEntry] = []
    code: CodeEntry
    sha256: _Sha256

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the transforms, then of the method behind them."""
        code, names = self.code, [self.code.method]
        for _ in self.transforms:
            if "weight" not in code.children:
                break
            code = code.children["weight"]
            names.append(code.method)
        return tuple(names)


class Metadata(_Entry):
    """The value of the one metadata key, `vqzoo`, in the safetensors header.

    Attributes:
        format_version: 1.
        required_features: those of `FEATURES` that a reader must have to read the file; none in
            plain format 1.
        config_sha256: of config.json without its `vqzoo` block, as canonical JSON.
        layers: state dict key -> compressed weight.
        aliases: state dict key -> the key whose tensor it shares.
        record_sha256: of `method` and `weights` of the config's `vqzoo` block, as canonical JSON;
            None in files that an older vqzoo wrote.
        norms: batch norm -> the layer whose weights have its scale, for the record.
    """

    format_version: Annotated[int, Field(strict=True)]
    required_features: list[str] = []
    config_sha256: _Sha256
    layers: dict[_Name, LayerEntry]
    aliases: dict[_Name, _Name] = {}
    record_sha256: _Sha256 | None = None
    norms: dict[_Name, _Name] = {}


class Proof(_Entry):
    """What the writer did to see that the artifact rebuilds the network that it was made of.

    Attributes:
        images: (images, channels, height, width) of the random images that both networks ran on.
        difference: largest difference of their outputs, as a share of the largest output.
    """

    images: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8)]
    difference: Annotated[float, Field(ge=0, le=1)]


class ConfigBlock(_Entry):
    """The `vqzoo` block of config.json; `proof` is missing where an older vqzoo wrote it."""

    format_version: Annotated[int, Field(strict=True)]
    method: _Name
    file: Literal["vqzoo.safetensors"]
    sha256: _Sha256
    bytes: _Size
    weights: _Name
    proof: Proof | None = None
