"""Check everything that can be refused about a run before it does any work or writes any file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vqzoo.budget.methods import check_sizes_are_open
from vqzoo.calibration.statistics import check_sequential
from vqzoo.compression.check import check_weights
from vqzoo.compression.folding import check_copies
from vqzoo.compression.norms.folding import FoldedNorms, fold_norms
from vqzoo.compression.options import validate_options
from vqzoo.compression.selection import LayerPlan, plan_layers
from vqzoo.compression.view import compressible_layers
from vqzoo.data.calibration_data import open_calibration_data, open_held_out
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.sources import read_options
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import UsageError
from vqzoo.finetuning.images import open_images
from vqzoo.finetuning.settings import Finetuning
from vqzoo.models.dense import OpenedModel, find_model
from vqzoo.models.embedded import default_data
from vqzoo.models.timm_config import timm_config
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.plugin.method import Method
from vqzoo.plugin.text import parse_methods
from vqzoo.progress import Watcher
from vqzoo.runs.budget.methods import with_budget_images, with_budget_method
from vqzoo.runs.fields.rules import Rule
from vqzoo.runs.recipe import NO_IMAGES, Recipe
from vqzoo.runs.recipe_hash import recipe_hash
from vqzoo.runs.workspace import default_folder

if TYPE_CHECKING:
    from vqzoo.runs.finetune_request import FinetuneRequest


@dataclass(frozen=True)
class Prepared:
    """A run that can start.

    Attributes:
        recipe: the request, its options converted to the types that their methods declare.
        plugins: the installed plugins.
        opened: the dense model; its batch norms are folded if the recipe folds them.
        plans: the layers to compress.
        skipped: layer -> why it stays dense.
        data: images to evaluate on, if any.
        training: images to fine-tune with, if the recipe fine-tunes.
        calibration: images to calibrate with, if the recipe calibrates.
        repair: images to repair the network with, if the recipe repairs it; the same object as
            `calibration` where both use the same data, so that images are decoded once.
        held_out: images held out of calibration, if some judge the recipe's budget or recovery.
        config: the artifact's config.
        device: where to compute.
        digest: hash of the request.
        target: the artifact's folder.
        norms: what was folded into the weights of the dense model, if the recipe folds norms.
    """

    recipe: Recipe
    plugins: Plugins
    opened: OpenedModel
    plans: list[LayerPlan]
    skipped: dict[str, str]
    data: Data | None
    training: TrainingData | None
    calibration: Data | None
    repair: Data | None
    held_out: Data | None
    config: Mapping[str, Any]
    device: torch.device
    digest: str
    target: Path
    norms: FoldedNorms | None = None


def prepare(
    recipe: Recipe, watcher: Watcher, out: Path | None, *, fall_back: bool = True
) -> Prepared:
    """Open the model and the data, and check the whole request; see `vqzoo.runs.run.run`.

    Raises:
        UsageError: the request names something that does not exist, or is invalid.
        VqzooError: the weights are not available, or are not finite.
    """
    plugins = installed_plugins()
    device = parse_device(recipe.device)
    recipe = _typed(with_budget_method(recipe, plugins, watcher), plugins)
    opened, norms = open_dense(recipe, watcher, fall_back=fall_back)
    recipe = with_budget_images(recipe, default_data(opened.name), watcher)
    layers, passed = compressible_layers(opened.module)
    rules = [(rule.layers, rule.choice()) for rule in recipe.rules]
    plans, skipped = plan_layers(
        layers, recipe.layers, recipe.choice(), rules, plugins, passed_over=passed
    )
    if recipe.repair is not None or recipe.finetune is not None or recipe.recover:
        check_copies(opened.module)
    if recipe.budget is not None:
        check_sizes_are_open(plans, plugins, recipe.budget)
    if recipe.sequential:
        check_sequential(plans, plugins, "--sequential")
    check_weights(opened.module, plans)
    with watcher.phase("opening the images"):
        data = open_measured_data(recipe, opened, watcher)
        training = _open_training(recipe, opened, watcher)
        calibration, held_out = _open_calibration_and_held_out(recipe, opened, training)
        repair = calibration
        if recipe.repair != recipe.calibrate:
            repair = _open_calibration(recipe.repair, recipe, opened)
    installed = {s.origin.distribution: s.origin.version for s in plugins.statuses}
    digest = recipe_hash(recipe, opened.name, opened.weights_sha256, installed)
    target = out or default_folder(opened.name, recipe.label, digest)
    return Prepared(
        recipe=recipe,
        plugins=plugins,
        opened=opened,
        plans=plans,
        skipped=passed | skipped,
        data=data,
        training=training,
        calibration=calibration,
        repair=repair,
        held_out=held_out,
        config=timm_config(opened.module, pretrained=opened.weights == "pretrained"),
        device=device,
        digest=digest,
        target=target,
        norms=norms,
    )


def open_dense(
    recipe: Recipe, watcher: Watcher, *, fall_back: bool = True
) -> tuple[OpenedModel, FoldedNorms | None]:
    """The dense model of a recipe, and what was folded into its weights if the recipe folds norms.

    Raises:
        UsageError: there is no such model.
        VqzooError: the weights are not available.
    """
    opened = find_model(
        recipe.model,
        watcher,
        weights=recipe.weights,
        checkpoint=recipe.checkpoint,
        model_args=recipe.model_args,
        seed=recipe.seed,
        fall_back=fall_back,
    )
    if not recipe.fold_norms:
        return opened, None
    with watcher.phase("folding batch norms"):
        norms = fold_norms(opened.module)
    return replace(opened, module=norms.module), norms


def open_measured_data(
    request: "Recipe | FinetuneRequest", opened: OpenedModel, watcher: Watcher
) -> Data | None:
    """The images that a request measures on; None where it names none and the model has none."""
    spec = request.data or default_data(opened.name)
    if spec is None:
        return None
    read = read_options(spec, request.class_map, request.skip_unreadable)
    data = open_data(spec, opened.module, images=request.images, read=read)
    if not data.labelled:
        watcher.say(f"{data.name} has no labels for this model: {data.unlabelled}.")
    return data


def _open_training(recipe: Recipe, opened: OpenedModel, watcher: Watcher) -> TrainingData | None:
    settings = recipe.finetune
    if settings is None:
        return None
    spec = settings.data or default_data(opened.name)
    if spec is None:
        raise UsageError(
            f"{opened.name} has no training images here: give --train-data imagefolder:PATH"
        )
    return open_training_images(spec, settings, recipe, opened, watcher)


def open_training_images(
    spec: str,
    settings: Finetuning,
    request: "Recipe | FinetuneRequest",
    opened: OpenedModel,
    watcher: Watcher,
) -> TrainingData:
    """The images that a request fine-tunes on, and a line on their labels for the user."""
    read = read_options(spec, request.class_map, request.skip_unreadable)
    training = open_images(spec, opened.module, settings, request.seed, read)
    if training.labels:
        watcher.say(f"{training.name}: {training.labels}")
    return training


def _open_calibration_and_held_out(
    recipe: Recipe, opened: OpenedModel, training: TrainingData | None
) -> tuple[Data | None, Data | None]:
    """The calibration images, and those held out of them, where the recipe has either; what is
    fine-tuned is judged by the images that validate fine-tuning."""
    spec = recipe.calibrate
    if spec is None or not (recipe.held_out or recipe.recover) or training is not None:
        held_out = training.validation if training is not None and recipe.held_out else None
        _check_labels(recipe, held_out)
        return _open_calibration(spec, recipe, opened), held_out
    calibration, held_out = open_held_out(
        spec,
        opened.module,
        images=recipe.calibration_images,
        held_out=recipe.held_out_images if recipe.held_out else recipe.calibration_images // 4,
        seed=recipe.seed,
        read=read_options(spec, recipe.class_map, recipe.skip_unreadable),
    )
    _check_labels(recipe, held_out)
    return calibration, held_out


def _check_labels(recipe: Recipe, held_out: Data | None) -> None:
    if recipe.max_drop is not None and held_out is not None and not held_out.labelled:
        raise UsageError(
            f"{held_out.name} has no labels for --max-drop: {held_out.unlabelled}; give --max-kl, "
            "which needs none"
        )


def _open_calibration(spec: str | None, recipe: Recipe, opened: OpenedModel) -> Data | None:
    if spec is None or spec == NO_IMAGES:
        return None
    return open_calibration_data(
        spec,
        opened.module,
        images=recipe.calibration_images,
        seed=recipe.seed,
        skip_unreadable=recipe.skip_unreadable,
    )


def parse_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        UsageError: torch cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def _typed(recipe: Recipe, plugins: Plugins) -> Recipe:
    """Convert options to the types that their methods declare: `-o k=256` is YAML's `k: 256`.

    Raises:
        UsageError: a name or an option is unknown; it is raised before a model is opened.
    """

    def typed(item: Method, texts: Mapping[str, Any]) -> dict[str, Any]:
        options = validate_options(item, texts)
        return {name: getattr(options, name) for name in texts}

    def update(request: Recipe | Rule) -> dict[str, Any]:
        changes: dict[str, Any] = {
            "transforms": tuple(
                step.model_copy(
                    update={"options": typed(plugins.transforms.get(step.name).item, step.options)}
                )
                for step in request.transforms
            )
        }
        if request.method is not None:
            methods = [plugins.quantizers.get(name).item for name in parse_methods(request.method)]
            changes["options"] = typed(methods[0], request.options)
        return changes

    if recipe.packing is not None:
        plugins.packings.get(recipe.packing)
    rules = tuple(rule.model_copy(update=update(rule)) for rule in recipe.rules)
    return recipe.model_copy(update={**update(recipe), "rules": rules})
