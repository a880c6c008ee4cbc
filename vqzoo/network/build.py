"""Build an artifact's architecture, check it against the header, and fill it with weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.dtypes import BY_NAME, BY_STORED_NAME, ElementType, torch_dtype
from vqzoo.artifact.parts import part_keys
from vqzoo.artifact.reader import Artifact
from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.decode import decode
from vqzoo.compression.view import compressible_layers, layer_name, weight_key
from vqzoo.errors import ArtifactError, one_line
from vqzoo.models.registration import register_models
from vqzoo.models.timm_config import check_model_args, known_pretrained_cfg
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins

Mode = Literal["decoded", "codes"]


def build_model(artifact: Artifact, plugins: Plugins, mode: Mode = "decoded") -> nn.Module:
    """The network of an artifact whose checksum has been verified."""
    register_models(plugins)
    with torch.device("meta"):
        expected = _create(artifact.config).state_dict()
    _compare(artifact, expected)
    model, coded = _to_be_filled(artifact, mode)
    with torch.no_grad():
        for key, code in _fill(model, artifact, plugins, coded).items():
            model = run_from_code(model, layer_name(key), code, plugins)
    return model


def _to_be_filled(artifact: Artifact, mode: Mode) -> tuple[nn.Module, set[str]]:
    """The architecture, and the keys of the weights that get no memory: those to run from codes."""
    with torch.random.fork_rng(devices=[]):
        if mode == "decoded":
            return _create(artifact.config).eval().requires_grad_(False), set()
        with weights_on_meta():
            model = _create(artifact.config).eval().requires_grad_(False)
    coded = _runnable(model, artifact)
    _allocate(model, coded)
    return model, coded


@contextmanager
def weights_on_meta() -> Iterator[None]:
    """The weights of layers that this thread makes take no memory: see `_allocate`."""
    thread = get_ident()

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        own = name == "weight" and name not in module._parameters  # a tied one is set later
        if own and get_ident() == thread and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            return nn.Parameter(parameter.detach().to("meta"))
        return None

    hook = register_module_parameter_registration_hook(without_memory)
    try:
        yield
    finally:
        hook.remove()


def _allocate(model: nn.Module, coded: set[str]) -> None:
    """Give the parameters on the meta device memory, to be filled, but for the keys `coded`."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            key = f"{path}.{name}" if path else name
            if parameter is None or not parameter.is_meta or key in coded:
                continue
            if parameter not in made:  # tied ones stay one
                empty = torch.empty_like(parameter, device="cpu")
                made[parameter] = nn.Parameter(empty, requires_grad=False)
            module._parameters[name] = made[parameter]


def _create(config: dict[str, Any]) -> nn.Module:
    """Make the architecture that a config names, without weights."""
    name, classes = config.get("architecture"), config.get("num_classes")
    arguments = config.get("model_args", {})
    if not isinstance(name, str) or "." in name or not timm.is_model(name):
        raise ArtifactError(f"the architecture {name!r:.80} is not one that timm has here")
    if not isinstance(arguments, dict):
        raise ArtifactError("model_args in config.json is not an object")
    arguments = {"num_classes": classes, **arguments}
    check_model_args(arguments)
    try:
        model = timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:
        raise ArtifactError(
            f"{name} cannot be made with the arguments of config.json: {one_line(error)}"
        ) from error
    cfg = config.get("pretrained_cfg")
    if isinstance(cfg, dict):  # preprocessing and label names; no weights come from it
        model.pretrained_cfg = {**model.pretrained_cfg, **known_pretrained_cfg(cfg)}
        model.default_cfg = model.pretrained_cfg
    return model


def _compare(artifact: Artifact, expected: dict[str, Tensor]) -> None:
    """Every tensor of the architecture is in the file with its shape and dtype, and no other."""
    stored: dict[str, tuple[tuple[int, ...], ElementType]] = {}
    for key, entry in artifact.metadata.layers.items():
        stored[key] = (entry.shape, BY_NAME[entry.dtype])
    for key, lies in artifact.dense_tensors().items():
        stored[key] = (lies.shape, BY_STORED_NAME[lies.dtype])
    for alias, key in artifact.metadata.aliases.items():
        stored[alias] = stored[key]
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
            raise ArtifactError(f"{key!r} has another dtype than the architecture's {tensor.dtype}")


def _fill(
    model: nn.Module, artifact: Artifact, plugins: Plugins, coded: set[str]
) -> dict[str, MethodCode]:
    """Copy and decode straight into the model's own tensors.

    Returns:
        Each of `coded` -> the code that its layer is to run from.
    """
    state = model.state_dict()
    kept: dict[str, MethodCode] = {}
    try:
        file = safe_open(artifact.weights_path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{artifact.weights_path}: {one_line(error)}") from None
    with file:
        for key in artifact.dense_tensors():
            state[key].copy_(file.get_tensor(key))
        for key, entry in artifact.metadata.layers.items():
            parts = {name: file.get_tensor(name) for name in part_keys(key, entry)}
            code = build_code(key, entry, parts, plugins)
            _decode_into(state[key], key, code, plugins)
            if key in coded:
                kept[key] = code
            if entry.dtype in ("float16", "bfloat16"):  # the network ran with rounded weights
                state[key].copy_(state[key].to(torch_dtype(entry.dtype)))
    for alias, key in artifact.metadata.aliases.items():
        state[alias].copy_(state[key])
    return kept


def _runnable(model: nn.Module, artifact: Artifact) -> set[str]:
    """Keys of the codes whose weights are one layer's alone, and that its forward pass alone uses;
    networks that ran with rounded weights run with them decoded."""
    shared = set(artifact.metadata.aliases.values())
    layers, _ = compressible_layers(model)
    entries = artifact.metadata.layers
    codes = {key for key, entry in entries.items() if entry.dtype == "float32"}
    return codes & {weight_key(layer.name) for layer in layers} - shared


def _decode_into(weight: Tensor, key: str, code: MethodCode, plugins: Plugins) -> None:
    """Decode a weight and check it; one on the meta device is checked, and let go."""
    m, n = code.code.shape
    if tuple(weight.shape[:1]) != (m,) or m * n != weight.numel():
        raise ArtifactError(f"{key!r}: its code is for a {m} x {n} matrix")
    direct = weight.dtype == torch.float32 and weight.is_contiguous() and not weight.is_meta
    try:
        matrix = decode(code, plugins, weight.view(m, n) if direct else None)
    except Exception as error:  # a plugin's code on a stranger's data
        raise ArtifactError(f"{key!r} cannot be decoded: {one_line(error)}") from error
    if tuple(matrix.shape) != (m, n) or not _all_finite(matrix):
        raise ArtifactError(f"{key!r} decodes to NaN, infinity or another shape")
    if not direct:
        weight.copy_(matrix.view(weight.shape))


def _all_finite(values: Tensor) -> bool:
    """Whether there is no NaN and no infinity, without a copy such as torch.isfinite makes."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)  # NaN is passed on
    return math.isfinite(low) and math.isfinite(high)
