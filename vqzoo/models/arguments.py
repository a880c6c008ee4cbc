"""The arguments of timm's factories that an artifact holds: JSON values, bounded."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from timm.layers import get_act_layer, get_norm_act_layer, get_norm_layer
from torch import nn

from vqzoo.artifact.schema import MODEL_ARGUMENTS
from vqzoo.errors import ArtifactError

_MAX_ARGUMENTS = 64
_MAX_TEXT = 128
_MAX_ITEMS = 64
_MAX_INTEGER = 1 << 24
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

# Arguments that name files, weights or devices; an artifact decides none of them.
_REFUSED = frozenset(
    (
        "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args",
        "pretrained_filter_fn", "pretrained_strict", "checkpoint_path", "cache_dir", "scriptable",
        "exportable", "no_jit", "device", "dtype", "kwargs_filter", "model_cfg", "model_name",
    )
)  # fmt: skip

# The arguments of plain format 1, which needs no feature.
_PLAIN_BOUNDS: dict[str, tuple[int, int]] = {
    "num_classes": (0, 1_000_000),
    "in_chans": (1, 1024),
    "img_size": (1, 4096),
    "patch_size": (1, 512),
}
_PLAIN_TEXTS = {"global_pool": ("", "avg", "max", "avgmax", "catavgmax", "fast", "token", "map")}

# They act in training, or while weights are loaded, alone.
_WITHOUT_EFFECT = re.compile(
    r"(drop|drop_path|drop_block|\w+_drop)_rate|pretrained_(strict|filter_fn)"
)

_ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "prelu", "silu", "mish", "gelu",
    "gelu_tanh", "quick_gelu", "sigmoid", "tanh", "hard_sigmoid", "hard_swish", "hard_mish",
    "identity",
)  # fmt: skip
_NORMS = (
    "batchnorm2d", "batchnorm1d", "groupnorm", "groupnorm1", "layernorm", "layernorm2d",
    "layernormfp32", "layernorm2dfp32", "rmsnorm", "rmsnorm2d", "rmsnormfp32", "rmsnorm2dfp32",
    "simplenorm", "simplenorm2d", "simplenormfp32", "simplenorm2dfp32", "frozenbatchnorm2d",
)  # fmt: skip
_NORM_ACTS = (
    "evonormb0", "evonormb1", "evonormb2", "evonorms0", "evonorms0a", "evonorms1", "evonorms1a",
    "evonorms2", "evonorms2a", "frn", "frntlu",
)  # fmt: skip
# torch's own classes that compute what timm's classes of these names do.
_TORCH_LAYERS = {
    nn.GELU: "gelu",
    nn.PReLU: "prelu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}


def portable_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `timm.create_model` as an artifact holds them.

    Layer classes that timm has a name for become that name, tuples become lists. Arguments that
    are None, which timm ignores, rates of dropout, which act in training alone, and those about
    the loading of weights are left out.

    Raises:
        ArtifactError: an artifact cannot hold an argument; names it.
    """
    portable = {
        name: _portable(value)
        for name, value in arguments.items()
        if value is not None and not _WITHOUT_EFFECT.fullmatch(name)
    }
    check_arguments(portable)
    return portable


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that an artifact may not set, or whose value is out of bounds.

    Raises:
        ArtifactError: names the first such argument.
    """
    if len(arguments) > _MAX_ARGUMENTS:
        raise ArtifactError(f"{len(arguments)} model arguments are more than {_MAX_ARGUMENTS}")
    for name, value in arguments.items():
        if not _NAME.fullmatch(name) or name in _REFUSED:
            raise ArtifactError(f"model argument {name!r:.80} cannot be held by an artifact")
        problem = _problem(name, value)
        if problem:
            raise ArtifactError(f"model argument {name}={value!r:.80} {problem}")


def required_features(config: Mapping[str, Any]) -> list[str]:
    """The features that an artifact with this config must declare, so that readers that would
    misread its `model_args` refuse it: none if plain format 1 can hold them."""
    arguments: Mapping[str, Any] = config.get("model_args", {})
    plain = all(_is_plain(name, value) for name, value in arguments.items())
    return [] if plain else [MODEL_ARGUMENTS]


def factory_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an artifact as factories take them: lists as tuples, timm's own defaults."""
    return {name: _tupled(value) for name, value in arguments.items()}


def with_layer_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments with names of layers replaced by their classes, for the factories that
    take classes alone."""
    return {name: _layer_class(name, value) or value for name, value in arguments.items()}


def _is_plain(name: str, value: Any) -> bool:
    if name in _PLAIN_BOUNDS:
        low, high = _PLAIN_BOUNDS[name]
        return type(value) is int and low <= value <= high
    return isinstance(value, str) and value in _PLAIN_TEXTS.get(name, ())


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with a value; None if nothing is."""
    bounds = _PLAIN_BOUNDS.get(name)
    items = list(_leaves(value, depth=0))
    if len(items) > _MAX_ITEMS:
        return f"has more than {_MAX_ITEMS} items"
    if bounds is not None:
        sizes = items if name in ("img_size", "patch_size") and len(items) <= 3 else [value]
        if any(type(size) is not int or not bounds[0] <= size <= bounds[1] for size in sizes):
            return f"is out of bounds: {bounds[0]} to {bounds[1]}"
    for item in items:
        if item is None or isinstance(item, bool):
            continue
        if isinstance(item, str):
            if len(item) > _MAX_TEXT or not item.isprintable():
                return "is not a short printable text"
        elif isinstance(item, int):
            if abs(item) > _MAX_INTEGER:
                return f"is out of bounds: at most {_MAX_INTEGER} in magnitude"
        elif not isinstance(item, float) or not math.isfinite(item):
            return (
                "cannot be held by an artifact, which holds numbers, texts, true, false, null, "
                "short lists of them, and the names of layers that timm knows"
            )
    return None


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    """The items of lists within lists, two deep; deeper lists are items that no check lets pass."""
    if isinstance(value, list) and depth < 2:
        for item in value:
            yield from _leaves(item, depth + 1)
    else:
        yield value


def _portable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, type):
        return _layer_name(value) or value
    return value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _layer_name(layer: type) -> str | None:
    """timm's name of a layer's class."""
    if layer in _TORCH_LAYERS:
        return _TORCH_LAYERS[layer]
    for names, find in (
        (_ACTIVATIONS, get_act_layer),
        (_NORMS, get_norm_layer),
        (_NORM_ACTS, get_norm_act_layer),
    ):
        for name in names:
            if find(name) is layer:
                return name
    return None


def _layer_class(name: str, value: Any) -> Any:
    """The class that a value names, where the argument is for a layer."""
    if not isinstance(value, str) or not name.endswith("layer"):
        return None
    finders = (get_act_layer,) if "act" in name else (get_norm_layer, get_norm_act_layer)
    for find in finders:
        try:
            return find(value)
        except KeyError:
            continue
    return None
