"""`vqzoo.compress`, and what it gives back."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.folder import check_target, replacement_folder
from vqzoo.artifact.writer import write_artifact
from vqzoo.compression.compress import CompressedLayer, check_weights, compress_layer
from vqzoo.compression.decode import decode
from vqzoo.compression.selection import MethodChoice, TransformChoice, plan_layers
from vqzoo.compression.view import compressible_layers, weight_key
from vqzoo.errors import NothingCompressed, UsageError
from vqzoo.models.timm_config import known_model_args, timm_config
from vqzoo.network.load import load
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Progress, SilentProgress

Choice = str | tuple[str, Mapping[str, Any]]


class CompressedModel(nn.Module):
    """A compressed network that runs.

    Attributes:
        module: a copy of the original in eval mode, its compressed weights decoded.
        layers: the compressed layers with their codes and errors, in the model's order.
        skipped: layer -> why it stayed dense.
        plugin_files: plugin files that it was made with.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[CompressedLayer],
        skipped: Mapping[str, str],
        plugins: Sequence[str | Path] = (),
    ) -> None:
        super().__init__()
        self.module = module
        self.layers = tuple(layers)
        self.skipped = dict(skipped)
        self.plugin_files = tuple(plugins)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the decoded network."""
        return self.module(*args, **kwargs)

    def save(
        self,
        folder: str | Path,
        *,
        model_args: Mapping[str, Any] | None = None,
        packing: str = "bits",
        force: bool = False,
    ) -> None:
        """Write an artifact that `vqzoo.load` reads.

        Args:
            folder: made whole or not at all.
            model_args: arguments of timm's factory that the model was made with, where this timm
                does not remember them itself: img_size, in_chans.
            packing: how codes become bytes.
            force: replace an artifact that is there.

        Raises:
            UsageError: the folder is taken, or timm could not make this model again.
        """
        with plugin_files(self.plugin_files):
            self._save(Path(folder), model_args, packing, force)

    def _save(
        self, target: Path, model_args: Mapping[str, Any] | None, packing: str, force: bool
    ) -> None:
        check_target(target, "", force=force, option="force=True")
        plugins = installed_plugins()
        arguments = dict(model_args) if model_args is not None else known_model_args(self.module)
        config = timm_config(self.module, arguments, pretrained=False)
        encoded = [
            encode_layer(
                weight_key(layer.layer.name),
                layer.layer.shape,
                self.module.get_parameter(weight_key(layer.layer.name)).dtype,
                layer.compressed,
                layer.options,
                packing,
                plugins,
                [(step.name, step.options) for step in layer.transforms],
            )
            for layer in self.layers
        ]
        methods = {layer.method for layer in self.layers}
        label = methods.pop() if len(methods) == 1 else "mixed"
        with replacement_folder(target) as folder:
            write_artifact(folder, self.module, encoded, config, method=label, weights="in memory")
            load(folder)  # what could not be loaded is not saved


def compress(
    model: nn.Module,
    method: str | Mapping[str, Choice],
    *,
    layers: str | Sequence[str] = "dense",
    ratio: float | None = None,
    transforms: Sequence[Choice] = (),
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    plugins: Sequence[str | Path] = (),
    **options: Any,
) -> CompressedModel:
    """Compress a network's weights.

    Args:
        model: any module; one that timm made can be saved. It is not changed.
        method: a method's name, or a mapping from layer selectors to a method or to
            (method, options): `{"features.*": ("km", {"k": 256}), "classifier.*": "pq"}`; the
            last one that matches a layer wins.
        layers: selectors of the layers that `method` compresses, where it is one name: "dense",
            "conv", "all", "largest:3", patterns; a leading "!" excludes.
        ratio: let the method choose its options for this ratio; 16 where neither it nor options
            are given.
        transforms: transforms to run before the method, the first one first: names, or
            (name, options).
        seed: the same seed gives the same codes.
        device: where to compute.
        progress: told of each layer.
        plugins: plugin files to use besides what is installed.
        **options: options of the method.

    Returns:
        The compressed network.

    Raises:
        UsageError: an unknown name or option, a selector that matches nothing.
        VqzooError: weights that are not finite.
        NothingCompressed: no layer could be compressed.

    Examples:
        >>> small = vqzoo.compress(model, "pq", layers="dense", k=256, d=4)  # doctest: +SKIP
    """
    with plugin_files(plugins):
        available = installed_plugins()
    watcher = progress or SilentProgress()
    found, passed = compressible_layers(model)
    choice, rules = _choices(method, ratio, transforms, options)
    selection = [layers] if isinstance(layers, str) else list(layers)
    plans, skipped = plan_layers(found, selection, choice, rules, available)
    check_weights(model, plans)
    compressed: list[CompressedLayer] = []
    for index, plan in enumerate(plans):
        watcher.layer_started(plan.layer.name, index, len(plans))
        try:
            compressed.append(
                compress_layer(
                    model,
                    plan,
                    available,
                    seed=seed,
                    device=torch.device(device),
                    progress=watcher,
                )
            )
        except SkipLayer as reason:
            skipped[plan.layer.name] = str(reason)
            watcher.note(plan.layer.name, f"stays dense: {reason}")
    if not compressed:
        first = plans[0].layer.name
        raise NothingCompressed(f"no layer could be compressed; {first}: {skipped[first]}")
    decoded = copy.deepcopy(model).eval().requires_grad_(False)
    for layer in compressed:
        weight = decoded.get_parameter(weight_key(layer.layer.name))
        with torch.no_grad():
            weight.copy_(decode(layer.compressed, available).view(weight.shape))
    return CompressedModel(decoded, compressed, passed | skipped, plugins)


def _choices(
    method: str | Mapping[str, Choice],
    ratio: float | None,
    transforms: Sequence[Choice],
    options: Mapping[str, Any],
) -> tuple[MethodChoice | None, list[tuple[str, MethodChoice]]]:
    """The method for the selected layers, and the rules."""
    steps = tuple(TransformChoice(*_named_options(step)) for step in transforms)
    if isinstance(method, str):
        return MethodChoice(method, options, ratio, steps), []
    if options:
        raise UsageError(f"options {', '.join(options)}: put them into the mapping, with a method")
    rules = []
    for selector, wanted in method.items():
        name, given = _named_options(wanted)
        rules.append((selector, MethodChoice(name, given, ratio, steps)))
    return None, rules


def _named_options(choice: Choice) -> tuple[str, Mapping[str, Any]]:
    """A name and its options, none where it stands alone."""
    return (choice, {}) if isinstance(choice, str) else choice
