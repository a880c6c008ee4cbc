"""The timm config of a model: the content of config.json besides its `vqzoo` block."""

from collections.abc import Mapping
from typing import Any

from timm.models import get_model_args
from torch import nn

from vqzoo.errors import ArtifactError, UsageError, one_line
from vqzoo.models.arguments import portable_arguments
from vqzoo.models.create import create_on_meta

# The keys that timm needs to rebuild and preprocess; none names a local path or code to load.
_PRETRAINED_KEYS = (
    "tag", "hf_hub_id", "url", "input_size", "test_input_size", "min_input_size",
    "fixed_input_size", "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std",
    "num_classes", "pool_size", "test_pool_size", "first_conv", "classifier", "license",
    "label_names", "label_descriptions",
)  # fmt: skip

_PREPROCESSING_VALUES = {
    "interpolation": ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", "random"),
    "crop_mode": ("center", "squash", "border"),
}

# Where timm's weights come from; does not apply to a checkpoint or to random weights.
_ORIGIN_KEYS = ("tag", "hf_hub_id", "url", "license")


def timm_config(
    model: nn.Module, model_args: Mapping[str, Any] | None = None, *, pretrained: bool
) -> dict[str, Any]:
    """Describe a model that timm created, so that timm can create it again.

    What was changed after creation is recorded where timm's factory has an argument for it: the
    classifier (`reset_classifier`, or a Linear or Identity in its place), pooling, input size.

    Args:
        model: the model.
        model_args: arguments of timm's factory that take the place of those that timm recorded.
        pretrained: whether its weights are timm's pretrained ones.

    Returns:
        The config, ready for JSON.

    Raises:
        UsageError: timm did not create the model, an artifact cannot hold an argument, or timm
            would create other tensors; names it.
    """
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    architecture = cfg.get("architecture")
    if not architecture:
        raise UsageError(
            f"{type(model).__name__} was not created by timm.create_model, so an artifact could "
            "not say how to rebuild it: vqzoo.save_weights saves its weights alone, or register it "
            "with timm first (timm.models.register_model)"
        )
    classes = _classes(model, cfg)
    arguments = _arguments(model, architecture, classes, model_args or {})
    keys = [key for key in _PRETRAINED_KEYS if pretrained or key not in _ORIGIN_KEYS]
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": classes,
        "pretrained_cfg": {key: _plain(cfg[key]) for key in keys if cfg.get(key) is not None},
    }
    if isinstance(getattr(model, "num_features", None), int):
        config["num_features"] = model.num_features
    if arguments:
        config["model_args"] = arguments
    return config


def _classes(model: nn.Module, cfg: Mapping[str, Any]) -> int:
    """The number of classes: that of the classifier's module, which users replace, or timm's."""
    names = cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    heads = [module for name, module in model.named_modules() if name in names]
    if heads and all(type(head) is nn.Linear for head in heads):
        return int(heads[0].out_features)
    if heads and all(type(head) is nn.Identity for head in heads):
        return 0
    return int(getattr(model, "num_classes", 0))


def _arguments(
    model: nn.Module, architecture: str, classes: int, replacements: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments besides the number of classes with which timm creates a model of the same
    tensors.

    Raises:
        UsageError: an artifact cannot hold one of them, or timm would create other tensors.
    """
    recorded = {**getattr(model, "_model_args", {}), **replacements}
    recorded.pop("num_classes", None)
    try:
        arguments = portable_arguments(recorded)
    except ArtifactError as error:
        raise UsageError(
            f"{error}; model_args= of save() replaces an argument, and vqzoo.save_weights needs "
            "none"
        ) from None
    rebuilt = _rebuilt(architecture, classes, arguments)
    now, then = get_model_args(model), get_model_args(rebuilt)
    changed = {
        name: now[name]
        for name in ("in_chans", "img_size", "global_pool")
        if name in now and now[name] != then.get(name) and name not in replacements
    }
    if changed:
        arguments = portable_arguments({**arguments, **changed})
        rebuilt = _rebuilt(architecture, classes, arguments)
    _check_same_tensors(model, rebuilt)
    return arguments


def _rebuilt(architecture: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return create_on_meta(architecture, {"num_classes": classes, **arguments})
    except Exception as error:
        raise UsageError(
            f"timm cannot create {architecture} again with {_call(arguments)}: {one_line(error)}"
        ) from error


def _call(arguments: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r:.80}" for name, value in arguments.items())
    return text or "its default arguments"


def _check_same_tensors(model: nn.Module, rebuilt: nn.Module) -> None:
    """Check that timm would create the tensors that the model has.

    Raises:
        UsageError: names the first tensor that differs.
    """
    tensors, expected = model.state_dict(), rebuilt.state_dict()
    advice = (
        "an artifact would not hold the network that you have; vqzoo.save_weights writes one "
        "without an architecture"
    )
    for key in expected:
        if key not in tensors:
            raise UsageError(f"timm would create a tensor {key!r}, which is not there: {advice}")
    for key, tensor in tensors.items():
        if key not in expected:
            raise UsageError(f"timm would not create the tensor {key!r}: {advice}")
        if tensor.shape != expected[key].shape:
            raise UsageError(
                f"timm would create {key!r} as {tuple(expected[key].shape)}, not "
                f"{tuple(tensor.shape)}: {advice}"
            )


def known_pretrained_cfg(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of an artifact's `pretrained_cfg` that are used; none names code or files.

    Raises:
        ArtifactError: an entry has a type or value that it cannot have.
    """
    for name in ("input_size", "test_input_size", "min_input_size"):
        size = cfg.get(name, [1, 1, 1])
        if not isinstance(size, list) or len(size) != 3:
            raise ArtifactError(f"{name} of the pretrained_cfg is not [channels, height, width]")
        if any(type(side) is not int or not 1 <= side <= 4096 for side in size):
            raise ArtifactError(f"{name}={size!r:.80} of the pretrained_cfg is out of bounds")
    for name in ("mean", "std"):
        values = cfg.get(name, [])
        if not isinstance(values, list) or any(type(v) not in (int, float) for v in values):
            raise ArtifactError(f"{name} of the pretrained_cfg is not a list of numbers")
    labels = cfg.get("label_names", [])
    if not isinstance(labels, list) or any(not isinstance(label, str) for label in labels):
        raise ArtifactError("label_names of the pretrained_cfg is not a list of strings")
    for name in ("crop_pct", "test_crop_pct"):
        share = cfg.get(name, 1.0)
        if type(share) not in (int, float) or not 0 < share <= 4:
            raise ArtifactError(f"{name}={share!r:.80} of the pretrained_cfg is out of bounds")
    for name, values in _PREPROCESSING_VALUES.items():
        if cfg.get(name, values[0]) not in values:
            raise ArtifactError(
                f"{name}={cfg[name]!r:.80} of the pretrained_cfg is not one of {', '.join(values)}"
            )
    return {name: value for name, value in cfg.items() if name in _PRETRAINED_KEYS}


def _plain(value: Any) -> Any:
    """A value with tuples turned into lists, as JSON holds them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
