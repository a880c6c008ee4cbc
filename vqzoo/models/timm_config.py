"""The timm config of a model: the content of config.json besides its `vqzoo` block."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from vqzoo.errors import ArtifactError, UsageError

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

# The arguments of timm's factories that an artifact may set: bounded scalars that shape a model.
_ARGUMENT_BOUNDS: dict[str, tuple[int, int]] = {
    "num_classes": (0, 1_000_000),
    "in_chans": (1, 1024),
    "img_size": (1, 4096),
    "patch_size": (1, 512),
}
_ARGUMENT_TEXTS = {"global_pool": ("", "avg", "max", "avgmax", "catavgmax", "fast", "token", "map")}


# Where timm's weights come from; does not apply to a checkpoint or to random weights.
_ORIGIN_KEYS = ("tag", "hf_hub_id", "url", "license")


def timm_config(
    model: nn.Module, model_args: Mapping[str, Any], *, pretrained: bool
) -> dict[str, Any]:
    """Describe a model that timm created.

    Args:
        model: the model.
        model_args: the arguments besides the number of classes that `timm.create_model` needs to
            create a model of the same shape.
        pretrained: whether its weights are timm's pretrained ones.

    Returns:
        The config, ready for JSON.

    Raises:
        UsageError: timm did not create the model, or an artifact cannot hold an argument.
    """
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    architecture = cfg.get("architecture")
    if not architecture:
        raise UsageError(
            f"{type(model).__name__} was not created by timm.create_model, so an artifact could "
            "not say how to rebuild it: vqzoo.save_weights saves its weights alone, or register it "
            "with timm first (timm.models.register_model)"
        )
    arguments = dict(model_args)
    try:
        check_model_args(arguments)
    except ArtifactError as error:
        raise UsageError(str(error)) from None
    keys = [key for key in _PRETRAINED_KEYS if pretrained or key not in _ORIGIN_KEYS]
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": int(getattr(model, "num_classes", 0)),
        "pretrained_cfg": {key: _plain(cfg[key]) for key in keys if cfg.get(key) is not None},
    }
    if isinstance(getattr(model, "num_features", None), int):
        config["num_features"] = model.num_features
    if arguments:
        config["model_args"] = arguments
    return config


def known_model_args(model: nn.Module) -> dict[str, Any]:
    """The arguments that timm created a model with, as far as timm kept them and artifacts may hold
    them."""
    recorded: Mapping[str, Any] = getattr(model, "_model_args", None) or {}
    allowed = {*_ARGUMENT_BOUNDS, *_ARGUMENT_TEXTS} - {"num_classes"}
    return {name: value for name, value in recorded.items() if name in allowed}


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


def check_model_args(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that an artifact may not set, or whose value is out of bounds.

    Raises:
        ArtifactError: names the first such argument.
    """
    for name, value in arguments.items():
        if name in _ARGUMENT_BOUNDS:
            low, high = _ARGUMENT_BOUNDS[name]
            if type(value) is int and low <= value <= high:
                continue
        elif name in _ARGUMENT_TEXTS:
            if value in _ARGUMENT_TEXTS[name]:
                continue
        else:
            known = ", ".join([*_ARGUMENT_BOUNDS, *_ARGUMENT_TEXTS])
            raise ArtifactError(f"model argument {name!r:.80} is not among {known}")
        raise ArtifactError(f"model argument {name}={value!r:.80} is out of bounds")


def _plain(value: Any) -> Any:
    """A value with tuples turned into lists, as JSON holds them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
