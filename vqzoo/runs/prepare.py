"""Everything about a run that can be refused before any work is done or any file is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqzoo.compression.compress import check_weights, parse_options
from vqzoo.compression.selection import LayerPlan, plan_layers
from vqzoo.compression.view import compressible_layers
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.training_data import TrainingData, open_training_data
from vqzoo.errors import UsageError
from vqzoo.finetuning.settings import Finetuning
from vqzoo.models.dense import OpenedModel, find_model
from vqzoo.models.embedded import default_data
from vqzoo.models.timm_config import timm_config
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.plugin.method import Method
from vqzoo.progress import Watcher
from vqzoo.runs.recipe import Recipe, recipe_hash
from vqzoo.runs.rules import Rule
from vqzoo.runs.workspace import default_folder


@dataclass(frozen=True)
class Prepared:
    """A run that may start.

    Attributes:
        recipe: what was asked.
        plugins: what is installed.
        opened: the dense model.
        plans: the layers to compress.
        skipped: layer -> why it stays dense.
        data: images to measure on, if any.
        training: images to fine-tune with, where that is asked for.
        calibration: images to weigh errors by, where that is asked for.
        repair: images to repair the network with, where that is asked for.
        config: the artifact's config.
        device: where to compute.
        digest: hash of what was asked.
        target: the artifact's folder.
    """

    recipe: Recipe
    plugins: Plugins
    opened: OpenedModel
    plans: list[LayerPlan]
    skipped: dict[str, str]
    data: Data | None
    training: TrainingData | None
    calibration: TrainingData | None
    repair: TrainingData | None
    config: Mapping[str, Any]
    device: torch.device
    digest: str
    target: Path


def prepare(
    recipe: Recipe, watcher: Watcher, out: Path | None, *, fall_back: bool = True
) -> Prepared:
    """Open the model and the data, and check all that was asked; see `runner.run`.

    Raises:
        UsageError: something does not exist or makes no sense.
        VqzooError: weights cannot be had or are not finite.
    """
    plugins = installed_plugins()
    device = parse_device(recipe.device)
    recipe = _typed(recipe, plugins)
    opened = find_model(
        recipe.model,
        watcher,
        weights=recipe.weights,
        checkpoint=recipe.checkpoint,
        model_args=recipe.model_args,
        seed=recipe.seed,
        fall_back=fall_back,
    )
    layers, passed = compressible_layers(opened.module)
    rules = [(rule.layers, rule.choice()) for rule in recipe.rules]
    plans, skipped = plan_layers(layers, recipe.layers, recipe.choice(), rules, plugins)
    check_weights(opened.module, plans)
    installed = {s.origin.distribution: s.origin.version for s in plugins.statuses}
    digest = recipe_hash(recipe, opened.name, opened.weights_sha256, installed)
    target = out or default_folder(opened.name, recipe.label, digest)
    spec = recipe.data or default_data(opened.name)
    return Prepared(
        recipe=recipe,
        plugins=plugins,
        opened=opened,
        plans=plans,
        skipped=passed | skipped,
        data=open_data(spec, opened.module, images=recipe.images) if spec else None,
        training=_open_training(recipe, opened),
        calibration=_open_unlabelled(recipe.calibrate, recipe, opened),
        repair=_open_unlabelled(recipe.repair, recipe, opened),
        config=timm_config(
            opened.module, opened.model_args, pretrained=opened.weights == "pretrained"
        ),
        device=device,
        digest=digest,
        target=target,
    )


def _open_training(recipe: Recipe, opened: OpenedModel) -> TrainingData | None:
    settings = recipe.finetune
    if settings is None:
        return None
    spec = settings.data or default_data(opened.name)
    if spec is None:
        raise UsageError(
            f"{opened.name} has no training images here: give --train-data imagefolder:PATH"
        )
    return open_training_data(spec, opened.module, settings, seed=recipe.seed)


def _open_unlabelled(spec: str | None, recipe: Recipe, opened: OpenedModel) -> TrainingData | None:
    """Some training images as they are for evaluation; their labels are not looked at."""
    if spec is None:
        return None
    settings = Finetuning(images=recipe.calibration_images, augment=False)
    return open_training_data(spec, opened.module, settings, seed=recipe.seed, hold_out=False)


def parse_device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        UsageError: it is not.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def _typed(recipe: Recipe, plugins: Plugins) -> Recipe:
    """The recipe with its options as their methods read them, so that `-o k=256` and YAML's
    `k: 256` ask for the same.

    Raises:
        UsageError: a name or an option is unknown; told before a model is opened.
    """

    def typed(item: Method, given: Mapping[str, Any]) -> dict[str, Any]:
        parsed = parse_options(item, given)
        return {name: getattr(parsed, name) for name in given}

    def update(asked: Recipe | Rule) -> dict[str, Any]:
        found: dict[str, Any] = {
            "transforms": tuple(
                step.model_copy(
                    update={"options": typed(plugins.transforms.get(step.name).item, step.options)}
                )
                for step in asked.transforms
            )
        }
        if asked.method is not None:
            method = plugins.quantizers.get(asked.method).item
            found["options"] = typed(method, asked.options)
        return found

    plugins.packings.get(recipe.packing)
    rules = tuple(rule.model_copy(update=update(rule)) for rule in recipe.rules)
    return recipe.model_copy(update={**update(recipe), "rules": rules})
