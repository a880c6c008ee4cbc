"""Choose the price of a bit that a budget asks for, and a method for each layer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vqzoo.budget.file_size import size_text
from vqzoo.budget.methods import is_fixed, price_option
from vqzoo.budget.search import MOST, Question, last_within
from vqzoo.budget.task import Limit, Task
from vqzoo.budget.trials import Trial, Trials
from vqzoo.compression.selection import LayerPlan
from vqzoo.errors import UsageError
from vqzoo.progress import Watcher
from vqzoo.report.budget import BudgetRecord, PriceStep
from vqzoo.report.formatting import count_of, megabytes, methods_text, nats

_HIGHEST = 1e4  # squared logits a bit, for which no layer keeps anything
_LOWEST = 1e-4  # squared logits for all weights together: answers do not change any more
_SIZE_SHARE = 0.01  # of the size that a file may stay below it
_LOSS_SHARE = 0.05  # of the loss on held-out images that a network may stay below it
_DROP_NOISE = 0.1  # points of top-1 below which differences mean nothing
_LOW_RATE_SLOPE = 0.35  # of ln(size) over -ln(price)
_MOST_FINETUNED = 5  # networks that are fine-tuned in a search
_FIRST_PRICE = 1e-6  # where no method has a default


@dataclass(frozen=True)
class Chosen:
    """What a budget chose: the layers, and what the record says."""

    trial: Trial
    record: BudgetRecord

    def plans(self, plans: Sequence[LayerPlan]) -> list[LayerPlan]:
        """The plans with the methods and options that were chosen."""
        layers = self.trial.layers
        return [
            replace(plan, choice=layers[i].choice) if i in layers else plan
            for i, plan in enumerate(plans)
        ]


def choose(task: Task, limit: Limit, watcher: Watcher) -> Chosen:
    """Search the price of a bit that keeps a limit, and the method of each layer at that price.

    Methods that know the price are searched first; from there, the points of other methods join
    where they are cheaper.

    Raises:
        UsageError: no price keeps the limit; says what comes nearest.
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and the task does not keep going.
    """
    search = _Search(task, limit, watcher)
    remark: str | None = None
    if limit.price is not None:
        trial = search.at(limit.price, ladders=search.trials.has_ladders)
        if task.sequential:
            trial = search.in_sequence(limit.price, trial)
    elif limit.size is not None:
        trial, remark = _of_size(search, limit.size)
    else:
        trial, remark = _of_loss(search)
    record = BudgetRecord(
        size=limit.size,
        max_kl=limit.max_kl,
        max_drop=limit.max_drop,
        price=trial.step.price,
        predicted_loss=trial.step.predicted_loss,
        layers=trial.losses,
        held_out=trial.step.held_out,
        steps=tuple(search.steps),
        methods=tuple(
            dict.fromkeys(one.method for plan in task.plans for one in plan.choice.each())
        ),
        **({} if remark is None else {"remark": remark}),
    )
    for layer in trial.layers.values():
        for note in layer.compressed.notes:
            watcher.note(layer.compressed.layer.name, note)
    return Chosen(trial, record)


class _Search:
    """The prices tried so far."""

    def __init__(self, task: Task, limit: Limit, watcher: Watcher) -> None:
        self.task = task
        self.limit = limit
        self.trials = Trials(task, watcher)
        self.steps: list[PriceStep] = []
        self._watcher = watcher

    @property
    def phases(self) -> list[bool]:
        """Whether ladders take part, in each phase of the search."""
        without = [False] if self.trials.has_prices else []
        return [*without, True] if self.trials.has_ladders else without

    def at(self, price: float, *, ladders: bool, known: Trial | None = None) -> Trial:
        """Try a price, and tell the user.

        Args:
            price: the price.
            ladders: whether layers may have points of ladders.
            known: a trial without ladders, which is not repeated at its price.
        """
        trials = self.trials
        if not ladders:
            return self._tried(trials.at(price))
        same = known if known is not None and known.step.price == price else None
        trial = trials.with_ladders(price, same)
        return trial if trial is known else self._tried(trial)

    def in_sequence(self, price: float, chosen: Trial) -> Trial:
        """Try a price with the methods of a trial and statistics behind compressed layers, and tell
        the user."""
        return self._tried(self.trials.again(price, chosen), "layer behind layer, ")

    def finetuned(self, price: float, chosen: Trial) -> Trial:
        """Try a price with the methods of a trial and fine-tuning, and tell the user."""
        return self._tried(self.trials.again(price, chosen, finetune=True), "fine-tuned, ")

    def _tried(self, trial: Trial, how: str = "") -> Trial:
        self.steps.append(trial.step)
        self._watcher.say(f"searching λ: step {len(self.steps)}, {how}{self._text(trial)}")
        return trial

    def _text(self, trial: Trial) -> str:
        held_out = trial.step.held_out
        text = megabytes(trial.step.bytes)
        if held_out is not None:
            text += f", KL {nats(held_out.kl)}"
            if held_out.drop_bound is not None:
                text += f", up to {held_out.drop_bound:.2f} points lost"
        if len(trial.methods) > 1:
            text += f" ({methods_text(trial.methods)})"
        return text


def _of_size(search: _Search, size: int) -> tuple[Trial, str | None]:
    """The largest file of at most `size` bytes; the place of a price is -ln(price)."""
    task, best, price = search.task, None, _first_price(search.task)
    weights = _open_weights(task)
    for ladders in search.phases:
        at = partial(search.at, ladders=ladders, known=best)
        before, within = best, _largest_within(at, size, price, weights)
        # Where ladders bring nothing at this size, the methods that know the price keep it.
        best = min(
            (trial for trial in (before, within) if trial is not None),
            key=_loss,
            default=None,
        )
        price = search.steps[-1].price if best is None else best.step.price
    if task.sequential and best is not None:
        at = partial(search.in_sequence, chosen=best)
        best = _largest_within(at, size, best.step.price, weights)
    smallest = min(step.bytes for step in search.steps)
    if best is None:
        raise UsageError(
            f"{search.limit.text}: the smallest possible file has {smallest:,} bytes"
            f"{_fixed(task)}; {size_text(_rounded_up(smallest))} can be reached"
        )
    if best.step.bytes >= (1 - _SIZE_SHARE) * size:
        return best, None
    below = f"{100 * (1 - best.step.bytes / size):.1f}% below {search.limit.option}"
    exact = f"{best.step.bytes:,} bytes, {below}"
    if any(step.bytes > size for step in search.steps):
        return best, f"The file has {exact}: no price of a bit comes nearer."
    return best, f"The file has {exact}: more would hardly bring the answers nearer."


def _largest_within(
    at: Callable[[float], Trial], size: int, first: float, weights: int
) -> Trial | None:
    """The largest of the files of at most `size` bytes that a phase of the search tries.

    Args:
        at: tries a price.
        size: bytes.
        first: the price to begin with.
        weights: of the layers whose size the price changes.
    """
    best: Trial | None = None

    def gap_at(place: float) -> float:
        nonlocal best
        trial = at(first if place == start else _price(-place))
        if trial.step.bytes <= size and (best is None or trial.step.bytes > best.step.bytes):
            best = trial
        return math.log(trial.step.bytes / size)

    start = -math.log(first)
    question = Question(
        low=-math.log(_HIGHEST),
        high=-math.log(_LOWEST / weights),
        first=start,
        # Half a bit a weight for each factor of two; less where most weights are zero.
        slope=min(weights / (16 * math.log(2)) / size, _LOW_RATE_SLOPE),
        near=-math.log(1 - _SIZE_SHARE),
    )
    last_within(question, gap_at)
    return best


def _rounded_up(size: int) -> int:
    """A size with three digits and a margin: what another request says may take some bytes more."""
    unit = 10 ** max(0, len(str(size)) - 3)
    return -int(-size * 1.005 // unit) * unit


def _of_loss(search: _Search) -> tuple[Trial, str | None]:
    """The smallest file that keeps to a loss on held-out images; places are ln(price)."""
    task, best, price = search.task, None, _first_price(search.task)
    for ladders in search.phases:
        at = partial(search.at, ladders=ladders, known=best)
        best = _smallest_that_keeps(search, at, price, best)
        price = search.steps[-1].price if best is None else best.step.price
    if task.sequential and best is not None:
        at = partial(search.in_sequence, chosen=best)
        best = _smallest_that_keeps(search, at, best.step.price, None)
    if task.finetune is not None and best is not None:
        at = partial(search.finetuned, chosen=best)
        tuned = _smallest_that_keeps(search, at, best.step.price, None, most=_MOST_FINETUNED)
        if tuned is not None:
            return tuned, None
        return best, "Fine-tuned networks did not keep the limit: this one did before fine-tuning."
    if best is None:
        least = min(search.steps, key=lambda step: _gap(search.limit, step))
        raise UsageError(
            f"{search.limit.text}: even a file of {megabytes(least.bytes)} loses "
            f"{_loss_text(search.limit, least)} on held-out images{_fixed(task)}"
        )
    if all(_gap(search.limit, step) <= 0 for step in search.steps):
        return best, "The file is the smallest possible: no price of a bit loses more."
    return best, None


def _smallest_that_keeps(
    search: _Search,
    at: Callable[[float], Trial],
    first: float,
    known: Trial | None,
    most: int = MOST,
) -> Trial | None:
    """The smallest of the files that keep the limit, of those that a phase of the search tries and
    the one that is known.

    Args:
        search: of the limit.
        at: tries a price.
        first: the price to begin with.
        known: a trial that may be the answer.
        most: prices to try.
    """
    best, sizes = known, dict[float, int]()

    def gap_at(place: float) -> float:
        nonlocal best
        trial = at(first if place == start else _price(place))
        sizes[place] = trial.open_bytes
        gap = _gap(search.limit, trial.step)
        if gap <= 0 and (best is None or trial.step.bytes < best.step.bytes):
            best = trial
        return gap

    def enough(inside: float, outside: float) -> bool:
        return sizes[inside] <= (1 + _SIZE_SHARE) * sizes[outside]

    start = math.log(first)
    question = Question(
        low=math.log(_LOWEST / _open_weights(search.task)),
        high=math.log(_HIGHEST),
        first=start,
        slope=1.0,
        near=-math.log(1 - _LOSS_SHARE),
        most=most,
    )
    last_within(question, gap_at, enough)
    return best


def _loss(trial: Trial) -> float:
    return sum(trial.losses.values())


def _price(logarithm: float) -> float:
    """A price of four digits, which people can copy."""
    return float(f"{math.exp(logarithm):.4g}")


def _gap(limit: Limit, step: PriceStep) -> float:
    """How far beyond the limit a network is: at most 0 where it keeps to it."""
    assert step.held_out is not None
    if limit.max_kl is not None:
        kl = step.held_out.kl
        return math.inf if kl is None else math.log(max(kl, 1e-300) / limit.max_kl)
    assert limit.max_drop is not None
    assert step.held_out.drop_bound is not None
    # Logarithms, as losses are powers of the price; noise around 0 is levelled.
    drop = max(step.held_out.drop_bound, 0.0)
    return math.log((drop + _DROP_NOISE) / (limit.max_drop + _DROP_NOISE))


def _loss_text(limit: Limit, step: PriceStep) -> str:
    assert step.held_out is not None
    if limit.max_kl is not None:
        return "answers" if step.held_out.kl is None else f"{step.held_out.kl:.3g} nats"
    return f"up to {step.held_out.drop_bound:.2f} points of top-1"


def _open_weights(task: Task) -> int:
    """Weights of the layers whose size the price changes."""
    return sum(plan.layer.numel for plan in task.plans if not is_fixed(plan.choice, task.plugins))


def _first_price(task: Task) -> float:
    """Where to begin: the default of the first method that knows the price."""
    for plan in task.plans:
        for choice in plan.choice.each():
            option = price_option(choice, task.plugins)
            if option is not None:
                method = task.plugins.quantizers.get(choice.method).item
                default = method.Options.model_fields[option].default
                if isinstance(default, float) and default > 0:
                    return default
    return _FIRST_PRICE


def _fixed(task: Task) -> str:
    """What stays as large as it is, as a clause of messages about files that are too large."""
    fixed = sum(is_fixed(plan.choice, task.plugins) for plan in task.plans)
    parts = [
        f"{count_of(count, 'layer')} {what}"
        for count, what in (
            (task.dense_layers, "left dense"),
            (fixed, "whose size the request fixes"),
        )
        if count
    ]
    return f", with {' and '.join(parts)}" if parts else ""
