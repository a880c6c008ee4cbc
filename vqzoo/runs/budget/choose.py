"""Choose the price of a bit that a budget asks for, and leave its layers to the run."""

import math
from dataclasses import replace

from pydantic import ValidationError

from vqzoo.artifact.files import write_text
from vqzoo.errors import UsageError
from vqzoo.progress import Watcher
from vqzoo.report.budget import BudgetRecord, PriceStep
from vqzoo.report.formatting import count_of, megabytes, nats
from vqzoo.runs.budget.methods import price_option, priced
from vqzoo.runs.budget.search import Question, last_within
from vqzoo.runs.budget.trials import Trial, Trials
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.workspace import Workspace, budget_file, save_layer

_HIGHEST = 1e4  # squared logits a bit, for which no layer keeps anything
_LOWEST = 1e-4  # squared logits for all weights together: answers do not change any more
_SIZE_SHARE = 0.01  # of the size that a file may stay below it
_LOSS_SHARE = 0.05  # of the loss on held-out images that a network may stay below it
_DROP_NOISE = 0.1  # points of top-1 below which differences mean nothing
_LOW_RATE_SLOPE = 0.35  # of ln(size) over -ln(price)


def choose_price(
    prepared: Prepared, work: Workspace, watcher: Watcher, keep_going: bool
) -> tuple[Prepared, BudgetRecord | None]:
    """Search the price of a bit that keeps the recipe's budget.

    The layers at that price go into the workspace, where `compress_layers` finds them. A run that
    was interrupted behind the search does not search again.

    Returns:
        The run with the price in its plans, and what the record says about the budget; a recipe
        without a budget as it is, and None.

    Raises:
        UsageError: no price keeps the budget; says what comes nearest.
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and `keep_going` is off.
    """
    if prepared.recipe.budget is None:
        return prepared, None
    budget = _saved(work)
    if budget is None:
        trial, budget = _search(prepared, Trials(prepared, watcher, keep_going=keep_going), watcher)
        write_text(budget_file(work), budget.model_dump_json())
        for index, layer in trial.layers.items():
            save_layer(work, index, layer.encoded, layer.row)
            for note in layer.row.notes:
                watcher.note(layer.row.name, note)
    if budget.remark is not None:
        watcher.say(budget.remark)
    plans = priced(prepared.plans, prepared.plugins, budget.price)
    return replace(prepared, plans=plans), budget


def _saved(work: Workspace) -> BudgetRecord | None:
    """What an interrupted run found; None if there is nothing, or only a damaged file."""
    try:
        return BudgetRecord.model_validate_json(budget_file(work).read_bytes())
    except (OSError, ValidationError):
        return None


class _Search:
    """The prices tried so far, and the trial that may become the result."""

    def __init__(self, trials: Trials, watcher: Watcher) -> None:
        self._trials = trials
        self._watcher = watcher
        self.steps: list[PriceStep] = []
        self.best: Trial | None = None

    def at(self, price: float) -> Trial:
        """Try a price, and tell the user."""
        trial = self._trials.at(price)
        self.steps.append(trial.step)
        held_out = trial.step.held_out
        judged = "" if held_out is None else f", KL {nats(held_out.kl)}"
        if held_out is not None and held_out.drop is not None:
            judged += f", {-held_out.drop:+.2f} points"
        self._watcher.say(
            f"searching λ: step {len(self.steps)}, {megabytes(trial.step.bytes)}{judged}"
        )
        return trial


def _search(prepared: Prepared, trials: Trials, watcher: Watcher) -> tuple[Trial, BudgetRecord]:
    """The trial that keeps the budget, and its record."""
    recipe = prepared.recipe
    search = _Search(trials, watcher)
    remark: str | None = None
    if recipe.price is not None:
        trial = search.at(recipe.price)
    elif recipe.size_bytes is not None:
        trial, remark = _of_size(prepared, search, recipe.size_bytes)
    else:
        trial, remark = _of_loss(prepared, search)
    return trial, BudgetRecord(
        size=recipe.size_bytes,
        max_kl=recipe.max_kl,
        max_drop=recipe.max_drop,
        price=trial.step.price,
        predicted_loss=trial.step.predicted_loss,
        layers=trial.losses,
        held_out=trial.step.held_out,
        steps=tuple(search.steps),
        **({} if remark is None else {"remark": remark}),
    )


def _of_size(prepared: Prepared, search: _Search, size: int) -> tuple[Trial, str | None]:
    """The largest file of at most `size` bytes; the place of a price is -ln(price)."""
    weights, first = _weights(prepared), _first_price(prepared)

    def gap_at(place: float) -> float:
        trial = search.at(_price(-place))
        if trial.step.bytes <= size and (
            search.best is None or trial.step.bytes > search.best.step.bytes
        ):
            search.best = trial
        return math.log(trial.step.bytes / size)

    question = Question(
        low=-math.log(_HIGHEST),
        high=-math.log(_LOWEST / weights),
        first=-math.log(first),
        # Half a bit a weight for each factor of two; less where most weights are zero.
        slope=min(weights / (16 * math.log(2)) / size, _LOW_RATE_SLOPE),
        near=-math.log(1 - _SIZE_SHARE),
    )
    last_within(question, gap_at)
    smallest = min(step.bytes for step in search.steps)
    if search.best is None:
        raise UsageError(
            f"--size {prepared.recipe.size}: the smallest possible file has {smallest:,} bytes "
            f"({megabytes(smallest)}){_fixed(prepared)}"
        )
    trial = search.best
    if trial.step.bytes >= (1 - _SIZE_SHARE) * size:
        return trial, None
    exact = f"{trial.step.bytes:,} bytes, {100 * (1 - trial.step.bytes / size):.1f}% below --size"
    if any(step.bytes > size for step in search.steps):
        return trial, f"The file has {exact}: no price of a bit comes nearer."
    return trial, f"The file has {exact}: more would hardly bring the answers nearer."


def _of_loss(prepared: Prepared, search: _Search) -> tuple[Trial, str | None]:
    """The smallest file that keeps to a loss on held-out images; places are ln(price)."""
    recipe, weights = prepared.recipe, _weights(prepared)
    sizes: dict[float, int] = {}

    def gap_at(place: float) -> float:
        trial = search.at(_price(place))
        sizes[place] = trial.priced_bytes
        gap = _gap(recipe, trial.step)
        if gap <= 0 and (search.best is None or trial.step.bytes < search.best.step.bytes):
            search.best = trial
        return gap

    def enough(inside: float, outside: float) -> bool:
        return sizes[inside] <= (1 + _SIZE_SHARE) * sizes[outside]

    question = Question(
        low=math.log(_LOWEST / weights),
        high=math.log(_HIGHEST),
        first=math.log(_first_price(prepared)),
        slope=1.0,
        near=-math.log(1 - _LOSS_SHARE),
    )
    last_within(question, gap_at, enough)
    if search.best is None:
        least = min(search.steps, key=lambda step: _gap(recipe, step))
        raise UsageError(
            f"{recipe.budget}: even a file of {megabytes(least.bytes)} loses "
            f"{_loss_text(recipe, least)} on held-out images{_fixed(prepared)}"
        )
    if all(_gap(recipe, step) <= 0 for step in search.steps):
        return search.best, "The file is the smallest possible: no price of a bit loses more."
    return search.best, None


def _price(logarithm: float) -> float:
    """A price of four digits, which people can copy."""
    return float(f"{math.exp(logarithm):.4g}")


def _gap(recipe: Recipe, step: PriceStep) -> float:
    """How far beyond the budget a network is: at most 0 where it keeps to it."""
    assert step.held_out is not None
    if recipe.max_kl is not None:
        kl = step.held_out.kl
        return math.inf if kl is None else math.log(max(kl, 1e-300) / recipe.max_kl)
    assert recipe.max_drop is not None
    assert step.held_out.drop is not None
    # Logarithms, as losses are powers of the price; noise around 0 is levelled.
    drop = max(step.held_out.drop, 0.0)
    return math.log((drop + _DROP_NOISE) / (recipe.max_drop + _DROP_NOISE))


def _loss_text(recipe: Recipe, step: PriceStep) -> str:
    assert step.held_out is not None
    if recipe.max_kl is not None:
        return "answers" if step.held_out.kl is None else f"{step.held_out.kl:.3g} nats"
    return f"{step.held_out.drop:.2f} points of top-1"


def _weights(prepared: Prepared) -> int:
    """Weights of the layers that get the price."""
    return sum(
        plan.layer.numel
        for plan in prepared.plans
        if price_option(plan, prepared.plugins) is not None
    )


def _first_price(prepared: Prepared) -> float:
    """Where to begin: the default of the first method that gets the price."""
    for plan in prepared.plans:
        option = price_option(plan, prepared.plugins)
        if option is not None:
            method = prepared.plugins.quantizers.get(plan.choice.method).item
            default = method.Options.model_fields[option].default
            if isinstance(default, float) and default > 0:
                return default
    return 1e-6


def _fixed(prepared: Prepared) -> str:
    """What stays as large as it is, as a clause of messages about files that are too large."""
    fixed = sum(price_option(plan, prepared.plugins) is None for plan in prepared.plans)
    parts = [
        f"{count_of(count, 'layer')} {what}"
        for count, what in (
            (len(prepared.skipped), "left dense"),
            (fixed, "whose size the request fixes"),
        )
        if count
    ]
    return f", with {' and '.join(parts)}" if parts else ""
