"""Load a checkpoint into a model, whatever wrote it, or say why it does not fit.

Training scripts wrap a network's weights in many ways: under `state_dict` or `model`, behind the
prefixes that DataParallel, `torch.compile` and Lightning add, beside an average of the weights, or
with heads that only training needs. The loader reports each step that it takes to undo this in one
line. It refuses a checkpoint that would leave a weight of the model unset.
"""

import argparse
import importlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vqzoo.errors import UsageError, VqzooError, one_line

# Where training scripts put a state dict; averages of the weights come first, as in timm's loader.
_CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "averaged_model",
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights",
)  # fmt: skip
_AVERAGES = re.compile(r"(^|[._])(ema|averaged|swa)([._]|$)", re.IGNORECASE)
# Keys that change nothing of the forward pass in eval mode.
_AUXILIARY = re.compile(r"^(aux\w*|AuxLogits|auxiliary\w*)\.", re.IGNORECASE)
_PROFILER = re.compile(r"(^|\.)(total_ops|total_params)$")
_FILTERS = (
    "checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "_filter_torchvision_pretrained",
)  # fmt: skip
_MAX_NESTING = 4

State = dict[str, Tensor]


def load_checkpoint(module: nn.Module, path: Path, name: str) -> list[str]:
    """Load a checkpoint's weights into `module`.

    Args:
        module: a model that timm created; it is changed only if every weight gets a value.
        path: .safetensors, or a file written by `torch.save`, read with `weights_only=True`.
        name: name of the model, for error messages.

    Returns:
        One line for each container, prefix or key that was unwrapped, removed or ignored.

    Raises:
        UsageError: the file does not exist.
        VqzooError: the file cannot be read, or does not fit the model.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    notes: list[str] = []
    state = _unwrap(_read(path), path, notes)
    expected = module.state_dict()
    state = _without_prefix(state, expected, notes)
    state = _without_extras(state, expected, notes)
    if not _fits(state, expected):
        state = _converted(state, module, expected, notes)
    problem = _first_problem(state, expected, module)
    if problem:
        raise VqzooError(f"checkpoint {path} does not fit {name}: {problem}")
    module.load_state_dict({**_batch_counts(state, expected), **state})
    return notes


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # many scripts keep their args
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise VqzooError(f"checkpoint {path} cannot be read: {one_line(error)}") from error
    except Exception as error:  # pickle.UnpicklingError, and any other from a hostile file
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise VqzooError(f"checkpoint {path} cannot be read: {one_line(error)}") from error
        raise VqzooError(
            f"checkpoint {path} holds a {refused[1]} object, which vqzoo does not unpickle: save "
            "model.state_dict() alone"
        ) from None


def _unwrap(value: Any, path: Path, notes: list[str]) -> State:
    """The innermost mapping of names to tensors."""
    for _ in range(_MAX_NESTING):
        if not isinstance(value, Mapping):
            raise VqzooError(f"checkpoint {path} holds a {type(value).__name__}, not a state dict")
        container = next((c for c in _CONTAINERS if isinstance(value.get(c), Mapping)), None)
        if container is None:
            break
        average = " (averaged weights)" if _AVERAGES.search(container) else ""
        notes.append(f"The checkpoint's weights are under {container!r}{average}.")
        value = value[container]
    state = {str(key): tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
    if not state:
        raise VqzooError(f"checkpoint {path} holds no tensors")
    return state


def _without_prefix(state: State, expected: Mapping[str, Tensor], notes: list[str]) -> State:
    """Remove the prefix whose removal gives most keys of the model; averages win a tie."""
    counts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in expected:
                counts[".".join(parts[:start])] += 1
                break
    if not counts:
        return state
    most = max(counts.values())
    prefixes = [prefix for prefix, count in counts.items() if count == most]
    averages = [prefix for prefix in prefixes if _AVERAGES.search(prefix)]
    prefix = min(averages or prefixes, key=len)
    if not prefix and len(prefixes) == 1 and all(key in expected for key in state):
        return state
    dot = f"{prefix}." if prefix else ""
    if prefix:
        notes.append(f"The checkpoint's keys begin with {dot!r}, which was removed.")
    others = [other for other in prefixes if other != prefix]
    if others:
        average = "averaged " if _AVERAGES.search(prefix) else ""
        notes.append(f"It also holds weights under {others[0]!r}; the {average}ones were taken.")
    elsewhere = tuple(f"{other}." for other in others)
    kept = {key.removeprefix(dot): t for key, t in state.items() if key.startswith(dot)}
    return {k: t for k, t in kept.items() if not (elsewhere and k.startswith(elsewhere))}


def _without_extras(state: State, expected: Mapping[str, Tensor], notes: list[str]) -> State:
    """The state dict without tensors that eval mode never uses."""
    kept = dict(state)
    for pattern, what in ((_AUXILIARY, "auxiliary heads"), (_PROFILER, "a profiler's counters")):
        extra = [key for key in kept if key not in expected and pattern.search(key)]
        for key in extra:
            del kept[key]
        if extra:
            notes.append(f"{len(extra)} keys of {what} were ignored ({extra[0]} ...).")
    return kept


def _fits(state: State, expected: Mapping[str, Tensor]) -> bool:
    shapes = {key: tensor.shape for key, tensor in state.items()}
    counted = {key for key in expected if not key.endswith("num_batches_tracked")}
    return counted <= shapes.keys() <= expected.keys() and all(
        shape == expected[key].shape for key, shape in shapes.items()
    )


def _converted(
    state: State, module: nn.Module, expected: Mapping[str, Tensor], notes: list[str]
) -> State:
    """The state dict after the checkpoint filter of the model's family in timm, if that helps."""
    convert = _checkpoint_filter(module)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), module)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError):
        return state  # a layout that the filter does not know
    if not isinstance(converted, Mapping):
        return state
    converted = {str(k): t for k, t in converted.items() if isinstance(t, Tensor)}
    if _fits(converted, expected) or len(converted.keys() & expected.keys()) > len(
        state.keys() & expected.keys()
    ):
        notes.append("The checkpoint has another layout, which timm's filter converted.")
        return converted
    return state


def _checkpoint_filter(module: nn.Module) -> Callable[[State, nn.Module], Any] | None:
    """The checkpoint filter of a family, which timm defines beside the class."""
    architecture = (getattr(module, "pretrained_cfg", None) or {}).get("architecture")
    if not architecture or not timm.is_model(architecture):
        return None
    family = importlib.import_module(timm.model_entrypoint(architecture).__module__)
    return next((getattr(family, name) for name in _FILTERS if hasattr(family, name)), None)


@dataclass(frozen=True)
class _Misfit:
    """Keys that keep a state dict from fitting a model."""

    missing: list[str]
    unknown: list[str]
    reshaped: list[str]


def _misfit(state: State, expected: Mapping[str, Tensor]) -> _Misfit:
    return _Misfit(
        [k for k in expected if k not in state and not k.endswith("num_batches_tracked")],
        [k for k in state if k not in expected],
        [k for k in expected if k in state and state[k].shape != expected[k].shape],
    )


def _first_problem(state: State, expected: Mapping[str, Tensor], module: nn.Module) -> str:
    """The reason why a state dict does not fit, in one line; empty if it fits."""
    misfit = _misfit(state, expected)
    head = _classifier_keys(module)
    for key in misfit.reshaped:
        if key in head:
            return (
                f"its head {key} is for {len(state[key])} classes where the model has "
                f"{len(expected[key])}: give --model-arg num_classes={len(state[key])}"
            )
    parts = []
    if misfit.missing:
        key = misfit.missing[0]
        close = get_close_matches(key, misfit.unknown, n=2, cutoff=0.5)
        hint = f"; the checkpoint has {' and '.join(close)}" if close else ""
        parts.append(f"{len(misfit.missing)} weights would stay unset ({key} ...{hint})")
    if misfit.reshaped:
        key = misfit.reshaped[0]
        shapes = f"{tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        parts.append(f"{key} has shape {shapes}")
    if misfit.unknown:
        parts.append(f"{len(misfit.unknown)} keys are unknown ({misfit.unknown[0]} ...)")
    return "; ".join(parts)


def _classifier_keys(module: nn.Module) -> set[str]:
    names = (getattr(module, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def _batch_counts(state: State, expected: Mapping[str, Tensor]) -> State:
    """The counters of batch norms that a checkpoint lacks; eval mode does not read them."""
    return {
        key: tensor
        for key, tensor in expected.items()
        if key.endswith("num_batches_tracked") and key not in state
    }
