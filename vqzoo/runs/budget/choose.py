"""Choose a run's price and methods under its budget, once: resuming keeps them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from vqzoo.artifact.files import write_text
from vqzoo.budget.choose import choose
from vqzoo.budget.settings import BudgetSettings
from vqzoo.budget.task import Limit, Task
from vqzoo.budget.trials import Trial
from vqzoo.compression.workers.pool import LayerWorkers
from vqzoo.errors import UsageError
from vqzoo.finetuning.encoded import decoded_network
from vqzoo.finetuning.loop import tune
from vqzoo.models.arguments import required_features
from vqzoo.plugin.code import MethodCode
from vqzoo.progress import Watcher
from vqzoo.report.block import Options
from vqzoo.report.budget import BudgetRecord
from vqzoo.report.layer_record import layer_record
from vqzoo.runs.compress_layers import layer_workers
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.stages import earlier_stages
from vqzoo.runs.workspace import Workspace, budget_file, finetuning_checkpoint, save_layer


class _SavedChoice(BaseModel):
    """The method of a layer, and its options."""

    model_config = ConfigDict(frozen=True)

    method: str
    options: Options


class _SavedBudget(BaseModel):
    """What an interrupted run keeps of its search."""

    model_config = ConfigDict(frozen=True)

    record: BudgetRecord
    choices: dict[int, _SavedChoice]


def choose_layers(
    prepared: Prepared,
    work: Workspace,
    watcher: Watcher,
    keep_going: bool,
    executor: Executor | None,
) -> tuple[Prepared, BudgetRecord | None]:
    """Search the price of a bit that keeps the recipe's budget, and each layer's method at it.

    The layers go into the workspace, where `compress_layers` finds them. A run that was interrupted
    behind the search does not search again.

    Returns:
        The run with what was chosen in its plans, and what the record says about the budget; a
        recipe without a budget as it is, and None.

    Raises:
        UsageError: no price keeps the budget; says what comes nearest.
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and `keep_going` is off.
    """
    if prepared.recipe.budget is None:
        return prepared, None
    budget = _saved(work)
    if budget is None:
        task = _task(prepared, work, watcher, keep_going, layer_workers(work, executor))
        chosen = choose(task, _limit(prepared.recipe), watcher)
        budget = _SavedBudget(record=chosen.record, choices=_choices(prepared, chosen.trial))
        write_text(budget_file(work), budget.model_dump_json())
        for index, layer in chosen.trial.layers.items():
            row = layer_record(layer.compressed, layer.encoded)
            save_layer(work, index, layer.encoded, row)
        if task.finetune is not None:
            _keep_finetuning(work, chosen.record.price)
    if budget.record.remark is not None:
        watcher.say(budget.record.remark)
    plans = list(prepared.plans)
    for index, saved in budget.choices.items():
        choice = replace(plans[index].choice, method=saved.method, options=saved.options, others=())
        plans[index] = replace(plans[index], choice=choice)
    return replace(prepared, plans=plans), budget.record


def _choices(prepared: Prepared, trial: Trial) -> dict[int, _SavedChoice]:
    """What the search changed in the plans."""
    return {
        index: _SavedChoice(method=layer.choice.method, options=dict(layer.choice.options))
        for index, layer in trial.layers.items()
        if layer.choice != prepared.plans[index].choice
    }


def _saved(work: Workspace) -> _SavedBudget | None:
    """What an interrupted run found; None if there is nothing, or only a damaged file."""
    try:
        return _SavedBudget.model_validate_json(budget_file(work).read_bytes())
    except (OSError, ValidationError):
        return None


def _task(
    prepared: Prepared,
    work: Workspace,
    watcher: Watcher,
    keep_going: bool,
    workers: LayerWorkers | None,
) -> Task:
    recipe = prepared.recipe
    return Task(
        model=prepared.opened.module,
        plans=prepared.plans,
        dense_layers=len(prepared.skipped),
        plugins=prepared.plugins,
        seed=recipe.seed,
        device=prepared.device,
        packing=recipe.packing,
        rest=recipe.rest_dtype,
        features=required_features(prepared.config),
        layout=recipe.file_layout,
        norms=None if prepared.norms is None else prepared.norms.layers,
        calibration=prepared.calibration,
        sequential=recipe.sequential,
        repair=prepared.repair,
        held_out=prepared.held_out if prepared.recipe.held_out else None,
        finetune=_finetuning(prepared, work, watcher),
        keep_going=keep_going,
        keep_going_option="--keep-going",
        workers=workers,
    )


def _finetuning(
    prepared: Prepared, work: Workspace, watcher: Watcher
) -> Callable[[float, Mapping[str, MethodCode]], nn.Module] | None:
    """How a network is fine-tuned before it is judged; None where it is not.

    Raises:
        UsageError: the run compresses in stages: what they end with is not known before.
    """
    recipe, training = prepared.recipe, prepared.training
    if not recipe.held_out or recipe.finetune is None or training is None:
        return None
    settings, dense = recipe.finetune, prepared.opened.module
    if earlier_stages(prepared):
        raise UsageError(
            f"{recipe.budget} does not judge networks that are retrained in stages "
            f"({prepared.recipe.label}): fine-tune with --size or --lambda"
        )

    def finetune(price: float, codes: Mapping[str, MethodCode]) -> nn.Module:
        return tune(
            decoded_network(dense, codes, prepared.plugins),
            codes,
            dense,
            training,
            settings,
            prepared.plugins,
            watcher,
            seed=recipe.seed,
            device=prepared.device,
            checkpoint=finetuning_checkpoint(work, price),
        ).module

    return finetune


def _keep_finetuning(work: Workspace, price: float) -> None:
    """Of the networks that the search fine-tuned, keep the one at a price: the run need not do it
    again."""
    chosen = finetuning_checkpoint(work, price)
    if chosen.exists():
        chosen.replace(finetuning_checkpoint(work))
    for other in chosen.parent.glob(f"{chosen.stem.partition('-')[0]}-*{chosen.suffix}"):
        other.unlink()


def _limit(settings: BudgetSettings) -> Limit:
    """The recipe's limit, spelled as on the command line."""
    assert settings.budget is not None
    values = (settings.size, settings.max_kl, settings.max_drop, settings.price)
    value = next(value for value in values if value is not None)
    return Limit(
        settings.budget,
        f"{settings.budget} {value}",
        size=settings.size_bytes,
        max_kl=settings.max_kl,
        max_drop=settings.max_drop,
        price=settings.price,
    )
