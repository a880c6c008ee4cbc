"""Build an artifact's architecture, check it against the header, and fill it with weights."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.dtypes import BY_NAME, BY_STORED_NAME, ElementType, torch_dtype
from vqzoo.artifact.layouts.tensors import open_tensors
from vqzoo.artifact.parts import part_keys
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import MODEL_ARGUMENTS
from vqzoo.artifact.weights_only import need_architecture
from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.decode import decode
from vqzoo.compression.products.packed import packed
from vqzoo.compression.products.prepared import prepare
from vqzoo.compression.products.tiles import Tiles, tiles_of
from vqzoo.compression.view import (
    compressible_layers,
    is_parameter,
    layer_name,
    weight_key,
)
from vqzoo.errors import ArtifactError, one_line
from vqzoo.models.arguments import check_arguments, required_features
from vqzoo.models.create import bounded_construction, create_model, create_on_meta
from vqzoo.models.registration import register_models
from vqzoo.models.timm_config import known_pretrained_cfg
from vqzoo.network.without_weights import allocate, without_weights
from vqzoo.numerics.arrays import all_finite
from vqzoo.numerics.freed_memory import give_back_freed_memory, keep_freed_memory
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins

Mode = Literal["decoded", "codes"]

# Beside what a file holds, its architecture may create this much in building itself.
_SPARE_MODULES = 10_000
_SPARE_WEIGHTS = 1 << 26


def build_model(artifact: Artifact, plugins: Plugins, mode: Mode = "decoded") -> nn.Module:
    """Build the network of an artifact whose checksum has been verified.

    The architecture is created twice: on the meta device to compare it with the header, then on the
    CPU, so that buffers outside the state dict are what the architecture computes. A constructor
    that reads its own weights fails on the meta device: such a network is created on the CPU both
    times.

    Args:
        artifact: the opened artifact.
        plugins: the installed plugins; its models are known to timm afterwards.
        mode: see `vqzoo.load`.

    Raises:
        UsageError: the artifact has no architecture.
        ArtifactError: the artifact does not fit its architecture, or cannot be decoded.
    """
    model, coded = _create_empty(artifact, plugins, mode)
    with torch.no_grad():
        for key, code in fill(model.state_dict(), artifact, plugins, coded).items():
            model = run_from_code(model, layer_name(key), code, plugins)
    if coded:
        give_back_freed_memory()  # of rows that were decoded to check them
        keep_freed_memory()
    return model


def build_with_codes(
    artifact: Artifact, plugins: Plugins
) -> tuple[nn.Module, dict[str, MethodCode]]:
    """The network of an artifact, decoded, and the codes of its float32 weights by their keys.

    Weights that several layers share have no code here.

    Raises:
        UsageError, ArtifactError: as `build_model`.
    """
    model, _ = _create_empty(artifact, plugins, "decoded")
    shared = set(artifact.metadata.aliases.values())
    layers = artifact.metadata.layers.items()
    coded = {key for key, entry in layers if entry.dtype == "float32"} - shared
    with torch.no_grad():
        return model, fill(model.state_dict(), artifact, plugins, coded, pack=False)


def _create_empty(artifact: Artifact, plugins: Plugins, mode: Mode) -> tuple[nn.Module, set[str]]:
    """The architecture, checked against the header, and the keys of the weights that run from codes
    and get no memory.

    Raises:
        UsageError, ArtifactError: as `build_model`.
    """
    need_architecture(artifact)
    register_models(plugins)
    _check_tensors(artifact, _expected_tensors(artifact))
    with torch.random.fork_rng(devices=[]):
        if mode == "decoded":
            return _create(artifact.config).eval().requires_grad_(False), set()
        model = without_weights(lambda: _create(artifact.config)).eval().requires_grad_(False)
    coded = coded_keys(model, artifact)
    allocate(model, coded)
    return model, coded


def _expected_tensors(artifact: Artifact) -> dict[str, Tensor]:
    """The tensors of the architecture, which may be as large as the file says, on the meta device
    where that is possible.

    Raises:
        ArtifactError: the config names no architecture, or a far larger one than the file holds.
    """
    _check_arguments(artifact.config)
    if set(required_features(artifact.config)) - set(artifact.metadata.required_features):
        raise ArtifactError(
            f"model_args in config.json need the feature {MODEL_ARGUMENTS!r}, which the file does "
            "not declare"
        )
    shapes = [entry.shape for entry in artifact.metadata.layers.values()]
    shapes += [tensor.shape for tensor in artifact.dense_tensors().values()]
    weights = sum(math.prod(shape) for shape in shapes)
    tensors = len(shapes) + len(artifact.metadata.aliases)
    bounds = _SPARE_MODULES + 16 * tensors, _SPARE_WEIGHTS + 4 * weights
    with bounded_construction(*bounds):
        model = _create(artifact.config, create_on_meta)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    if buffers > _SPARE_WEIGHTS * 16 + 16 * weights:
        raise ArtifactError(
            f"the architecture with these arguments needs {buffers / 1e9:.1f} GB besides the "
            "file's weights"
        )
    return model.state_dict()


def _check_arguments(config: dict[str, Any]) -> None:
    """Refuse a config that names no architecture of timm's, or arguments that no factory may get.

    Raises:
        ArtifactError: names the first problem.
    """
    name, arguments = config.get("architecture"), config.get("model_args", {})
    if not isinstance(name, str) or "." in name or not timm.is_model(name):
        raise ArtifactError(f"timm has no architecture {name!r:.80} here")
    if not isinstance(arguments, dict):
        raise ArtifactError("model_args in config.json is not an object")
    check_arguments({"num_classes": config.get("num_classes"), **arguments})


def _create(config: dict[str, Any], create: Callable[..., nn.Module] = create_model) -> nn.Module:
    """Create the architecture that a config names, without pretrained weights."""
    name = config["architecture"]
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    try:
        model: Any = create(name, arguments)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"timm cannot create {name} with the arguments of config.json: {one_line(error)}"
        ) from error
    cfg = config.get("pretrained_cfg")
    if isinstance(cfg, dict):  # preprocessing and label names; no weights come from it
        model.pretrained_cfg = {**model.pretrained_cfg, **known_pretrained_cfg(cfg)}
        model.default_cfg = model.pretrained_cfg
    return model


def _check_tensors(artifact: Artifact, expected: dict[str, Tensor]) -> None:
    """Check that the file has every tensor of the architecture in its shape, and no other.

    Raises:
        ArtifactError: names the first tensor that does not fit.
    """
    stored = stored_tensors(artifact)
    for key in expected.keys() - stored.keys():
        raise ArtifactError(f"the artifact lacks the tensor {key!r}")
    for key in stored.keys() - expected.keys():
        raise ArtifactError(f"the architecture has no tensor {key!r:.200}")
    for key, tensor in expected.items():
        shape, dtype = stored[key]
        if tuple(tensor.shape) != shape:
            raise ArtifactError(
                f"{key!r} has shape {shape} where the architecture has {tuple(tensor.shape)}"
            )
        if tensor.is_floating_point() != dtype.is_floating_point:
            raise ArtifactError(
                f"{key!r} is stored as {dtype.name} where the architecture has {tensor.dtype}"
            )


def stored_tensors(artifact: Artifact) -> dict[str, tuple[tuple[int, ...], ElementType]]:
    """Shape and element type of every entry of the state dict, aliases included."""
    stored: dict[str, tuple[tuple[int, ...], ElementType]] = {}
    for key, entry in artifact.metadata.layers.items():
        stored[key] = (entry.shape, BY_NAME[entry.dtype])
    for key, tensor_entry in artifact.dense_tensors().items():
        stored[key] = (tensor_entry.shape, BY_STORED_NAME[tensor_entry.dtype])
    for alias, key in artifact.metadata.aliases.items():
        stored[alias] = stored[key]
    return stored


def fill(
    state: Mapping[str, Tensor],
    artifact: Artifact,
    plugins: Plugins,
    coded: set[str],
    *,
    pack: bool = True,
) -> dict[str, MethodCode]:
    """Copy and decode an artifact into tensors, in place.

    Args:
        state: state dict key -> tensor of the stored shape; those in `coded` may be on the meta
            device.
        artifact: the artifact, whose checksum has been verified.
        plugins: the installed methods and packings.
        coded: keys of the weights that run from codes.
        pack: whether codes of few bits are to share bytes.

    Returns:
        Each key in `coded` -> the code that its layer runs from.

    Raises:
        ArtifactError: the artifact cannot be read or decoded.
    """
    codes: dict[str, MethodCode] = {}
    with open_tensors(artifact) as file:
        for key in artifact.dense_tensors():
            state[key].copy_(file.tensor(key))
        for key, entry in artifact.metadata.layers.items():
            parts = file.tensors(part_keys(key, entry))
            code = build_code(key, entry, parts, plugins)
            _decode_into(state[key], key, code, plugins)
            if key in coded:
                codes[key] = packed(code, plugins) if pack else code
            if entry.dtype in ("float16", "bfloat16"):  # the network ran with rounded weights
                state[key].copy_(state[key].to(torch_dtype(entry.dtype)))
    for alias, key in artifact.metadata.aliases.items():
        state[alias].copy_(state[key])
    return codes


def coded_keys(model: nn.Module, artifact: Artifact) -> set[str]:
    """Keys of the weights that can run from codes: one layer's alone, used by its forward pass
    alone, and float32 (a network that ran with rounded weights needs them rounded again)."""
    shared = set(artifact.metadata.aliases.values())
    layers = [layer for layer in compressible_layers(model)[0] if not is_parameter(layer.name)]
    entries = artifact.metadata.layers
    codes = {key for key, entry in entries.items() if entry.dtype == "float32"}
    return codes & {weight_key(layer.name) for layer in layers} - shared


def _decode_into(weight: Tensor, key: str, code: MethodCode, plugins: Plugins) -> None:
    """Decode a weight into place and check it; a weight on the meta device is only checked.

    Raises:
        ArtifactError: the code does not fit the weight, or cannot be decoded.
    """
    m, n = code.code.shape
    if tuple(weight.shape[:1]) != (m,) or m * n != weight.numel():
        raise ArtifactError(f"{key!r}: its code is for a {m} x {n} matrix")
    if weight.is_meta and (tiles := tiles_of(prepare(code, plugins), torch.device("cpu"))):
        _check_rows(key, tiles)
        return
    direct = weight.dtype == torch.float32 and weight.is_contiguous() and not weight.is_meta
    try:
        matrix = decode(code, plugins, weight.view(m, n) if direct else None)
    except Exception as error:  # a plugin's code on untrusted data
        raise ArtifactError(f"{key!r} cannot be decoded: {one_line(error)}") from error
    if tuple(matrix.shape) != (m, n) or not all_finite(matrix):
        raise ArtifactError(f"{key!r} decodes to NaN, infinity or another shape")
    if not direct:
        weight.copy_(matrix.view(weight.shape))


def _check_rows(key: str, tiles: Tiles) -> None:
    """Decode a few rows at a time, and check them.

    Raises:
        ArtifactError: the code cannot be decoded.
    """
    n = tiles.shape[1]
    for start, stop in tiles.spans():
        try:
            rows = tiles.decode(start, stop)
        except Exception as error:  # a plugin's code on untrusted data
            raise ArtifactError(f"{key!r} cannot be decoded: {one_line(error)}") from error
        if tuple(rows.shape) != (stop - start, n) or not all_finite(rows):
            raise ArtifactError(f"{key!r} decodes to NaN, infinity or another shape")
