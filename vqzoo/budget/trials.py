"""A network compressed at one price of a bit after another."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

from vqzoo.artifact.file_size import network_bytes
from vqzoo.budget.candidate import Candidate, declared, make_candidate
from vqzoo.budget.hull import cheapest, cost
from vqzoo.budget.judge import Judge
from vqzoo.budget.ladder import RATIOS, Ladder, rungs
from vqzoo.budget.methods import at_price, is_fixed, price_option
from vqzoo.budget.task import Task
from vqzoo.calibration.second_order.sequential import SequentialStatistics
from vqzoo.calibration.statistics import layer_statistics
from vqzoo.compression.model import compress_each, nothing_compressed
from vqzoo.compression.norms.folding import merge_norms
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.work import NOT_REACHED
from vqzoo.errors import PluginError
from vqzoo.progress import Watcher
from vqzoo.report.budget import PriceStep

_MOST_RUNGS = 6  # of a ladder, tried at a price beside methods that know it


@dataclass(frozen=True)
class Trial:
    """The network at one price.

    Attributes:
        step: what the record says about it.
        layers: the compressed layers by their place in the plans.
        open_bytes: stored bytes of the layers whose size the price changes.
    """

    step: PriceStep
    layers: Mapping[int, Candidate]
    open_bytes: int

    @cached_property
    def losses(self) -> dict[str, float]:
        """Layer -> predicted loss."""
        return {layer.compressed.layer.name: layer.loss for layer in self.layers.values()}

    @cached_property
    def methods(self) -> dict[str, int]:
        """Method -> how many layers have it, most of them first."""
        names = [layer.choice.method for layer in self.layers.values()]
        distinct = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))
        return {name: names.count(name) for name in distinct}


class Trials:
    """Compresses a network at given prices; what does not depend on them is done once.

    Of a ladder, the points on its lower convex hull are kept in memory, as codes.
    """

    def __init__(self, task: Task, watcher: Watcher) -> None:
        self._task = task
        self._watcher = watcher
        self._statistics = _statistics(task, watcher)
        for plan in task.plans:
            name = plan.layer.name
            if self._statistics is not None and name not in self._statistics:
                watcher.note(name, NOT_REACHED)
        self._fixed: dict[int, Candidate] = {}
        self._skipped: dict[str, str] = {}
        self._ladders: dict[tuple[int, str], Ladder] = {}
        self._judge = Judge(task, watcher)

    @property
    def has_ladders(self) -> bool:
        """Whether a layer may have a method that knows no price of a bit."""
        return any(self._ladder_choices(plan) for plan in self._task.plans)

    @property
    def has_prices(self) -> bool:
        """Whether a layer may have a method that knows the price of a bit."""
        return any(self._priced_choices(plan) for plan in self._task.plans)

    def at(self, price: float) -> Trial:
        """Compress the network at a price by the methods that know it, count its bytes, and judge
        it if images are held out.

        Raises:
            NothingCompressed: no layer could be compressed.
            PluginError: a plugin failed, and the task does not keep going.
        """
        return self._trial(price, self._priced(price))

    def with_ladders(self, price: float, trial: Trial | None) -> Trial:
        """The network at a price where each layer may have a point of a ladder instead.

        Args:
            price: the price.
            trial: what `at` gave for it; None to compress the network now.

        Returns:
            `trial` itself if no layer changes.

        Raises:
            NothingCompressed: no layer could be compressed.
            PluginError: a plugin failed, and the task does not keep going.
        """
        layers = dict(self._priced(price) if trial is None else trial.layers)
        self._try_ladders(price, layers)
        changed = trial is None
        for (index, _), ladder in self._ladders.items():
            for candidate in ladder.hull:
                if index not in layers or cost(candidate, price) < cost(layers[index], price):
                    layers[index] = candidate
                    changed = True
        return self._trial(price, layers) if trial is None or changed else trial

    def again(self, price: float, trial: Trial, *, finetune: bool = False) -> Trial:
        """The network at a price with each layer's method in a trial. If the task is sequential,
        each layer is calibrated behind the compressed ones before it; losses are predicted as
        without that.

        Args:
            price: what methods that know the price get.
            trial: the methods; options of those that know no price stay.
            finetune: whether to fine-tune the network before it is judged.

        Raises:
            NothingCompressed: no layer could be compressed.
            PluginError: a plugin failed, and the task does not keep going.
        """
        plans: dict[int, LayerPlan] = {}
        for index, layer in trial.layers.items():
            plan, choice = self._task.plans[index], layer.choice
            option = self._task.plugins.quantizers.get(choice.method).item.price_option
            if option is not None and not is_fixed(plan.choice, self._task.plugins):
                choice = replace(choice, options={**choice.options, option: price})
            plans[index] = replace(plan, choice=choice)
        layers = self._compress(plans, in_sequence=self._task.sequential)
        return self._trial(price, layers, finetune=finetune)

    def _trial(
        self, price: float, layers: Mapping[int, Candidate], *, finetune: bool = False
    ) -> Trial:
        task = self._task
        if not layers:
            raise nothing_compressed(task.plans, self._skipped)
        layers = {index: layers[index] for index in sorted(layers)}
        encoded = [layer.encoded for layer in layers.values()]
        codes = {one.compressed.layer.name: one.compressed.compressed for one in layers.values()}
        finetuned = None
        if finetune:
            assert task.finetune is not None
            finetuned = task.finetune(price, codes)
        model = task.model if finetuned is None else finetuned
        if task.norms is not None:
            model = merge_norms(model)
        step = PriceStep(
            price=price,
            bytes=network_bytes(model, encoded, task.rest, task.features, task.layout, task.norms),
            predicted_loss=(
                None if self._statistics is None else sum(layer.loss for layer in layers.values())
            ),
            held_out=self._judge.judge(codes, finetuned),
        )
        open_bytes = sum(
            layer.encoded.nbytes for index, layer in layers.items() if index not in self._fixed
        )
        return Trial(step, layers, open_bytes)

    def _priced(self, price: float) -> dict[int, Candidate]:
        """The cheapest candidate of each layer by the methods that know the price; layers of a
        fixed size have theirs."""
        plans = self._task.plans
        plugins = self._task.plugins
        if not self._fixed:
            fixed = {i: plan for i, plan in enumerate(plans) if is_fixed(plan.choice, plugins)}
            self._fixed = self._compress(fixed)
        best = dict(self._fixed)
        choices = [self._priced_choices(plan) for plan in plans]
        for number in range(max(map(len, choices))):
            plans_here = {
                index: replace(plans[index], choice=at_price(of_layer[number], plugins, price))
                for index, of_layer in enumerate(choices)
                if number < len(of_layer)
            }
            for index, candidate in self._compress(plans_here).items():
                offers = [best[index]] if index in best else []
                best[index] = cheapest([*offers, candidate], price)
        return best

    def _priced_choices(self, plan: LayerPlan) -> list[MethodChoice]:
        plugins = self._task.plugins
        return [one for one in plan.choice.each() if price_option(one, plugins) is not None]

    def _ladder_choices(self, plan: LayerPlan) -> list[MethodChoice]:
        plugins = self._task.plugins
        if is_fixed(plan.choice, plugins):
            return []
        return [one for one in plan.choice.each() if price_option(one, plugins) is None]

    def _try_ladders(self, price: float, layers: Mapping[int, Candidate]) -> None:
        """Compress what may be cheaper at this price than the layers as they are: rung by rung, all
        layers at a time."""
        limits = {index: cost(layer, price) for index, layer in layers.items()}
        most = _MOST_RUNGS if self.has_prices else len(RATIOS)
        methods = dict.fromkeys(
            choice.method for plan in self._task.plans for choice in self._ladder_choices(plan)
        )
        for method in methods:
            ladders = {
                index: self._ladder(index, plan, choice)
                for index, plan in enumerate(self._task.plans)
                for choice in self._ladder_choices(plan)
                if choice.method == method
            }
            tried = 0
            for _ in range(most):
                waiting = {
                    index: rung
                    for index, ladder in ladders.items()
                    if (rung := ladder.next_rung(price, limits.get(index, math.inf))) is not None
                }
                if not waiting:
                    break
                tried += len(waiting)
                found = self._compress({index: rung.plan for index, rung in waiting.items()})
                for index, rung in waiting.items():
                    candidate = found.get(index)
                    ladders[index].tried(rung, candidate)
                    if candidate is not None:
                        limits[index] = min(limits.get(index, math.inf), cost(candidate, price))
            if tried:
                self._watcher.say(f"searching λ: {method}, {tried} candidates tried")

    def _ladder(self, index: int, plan: LayerPlan, choice: MethodChoice) -> Ladder:
        key = (index, choice.method)
        if key not in self._ladders:
            task = self._task
            try:
                found = rungs(replace(plan, choice=choice), task.plugins, task.packing)
            except PluginError as error:
                if not task.keep_going:
                    raise PluginError(
                        f"{error} ({task.keep_going_option} leaves it out)"
                    ) from error
                self._watcher.note(plan.layer.name, str(error))
                found = []
            self._ladders[key] = Ladder(found)
        return self._ladders[key]

    def _compress(
        self, plans: Mapping[int, LayerPlan], *, in_sequence: bool = False
    ) -> dict[int, Candidate]:
        """The candidates that plans give, by their place in the task's plans; with H of the dense
        network, or behind the layers compressed before."""
        if not plans:
            return {}
        task = self._task
        work = partial(
            make_candidate,
            plugins=task.plugins,
            packing=task.packing,
            seed=task.seed,
            device=task.device,
        )
        kept, skipped = compress_each(
            task.model,
            list(plans.values()),
            partial(work, judged_by=self._statistics) if in_sequence else work,
            progress=_WithoutNotes(self._watcher),
            statistics=(
                self._statistics_behind(plans.values()) if in_sequence else self._statistics
            ),
            keep_going=task.keep_going,
            keep_going_option=task.keep_going_option,
            workers=task.workers,
        )
        self._skipped = skipped | self._skipped
        places = {plan.layer.name: index for index, plan in plans.items()}
        return {places[layer.compressed.layer.name]: layer for layer in kept}

    def _statistics_behind(self, plans: Collection[LayerPlan]) -> SequentialStatistics:
        """What each plan's method declares that it uses, with H behind the layers compressed
        before."""
        task, known = self._task, self._statistics
        assert task.calibration is not None
        assert known is not None
        dense = {
            plan.layer.name: declared(plan, known[plan.layer.name], task.plugins)
            for plan in plans
            if plan.layer.name in known
        }
        return SequentialStatistics(
            task.model,
            [plan.layer for plan in plans],
            dense,
            task.calibration,
            {},
            device=task.device,
            progress=self._watcher.layer_step,
        )


class _WithoutNotes:
    """A `Progress` that drops notes: the price that is chosen makes them again."""

    def __init__(self, watcher: Watcher) -> None:
        self.layer_started = watcher.layer_started
        self.layer_step = watcher.layer_step

    def note(self, layer: str, text: str) -> None:
        """Drop a note."""


def _statistics(task: Task, watcher: Watcher) -> Mapping[str, Statistics] | None:
    """What calibration says about all layers; None without calibration."""
    if task.calibration is None:
        return None
    return layer_statistics(
        task.model,
        task.plans,
        task.plugins,
        task.calibration,
        seed=task.seed,
        device=task.device,
        watcher=watcher,
        second_order_of_all=True,
    )
