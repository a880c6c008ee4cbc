"""Options of a method that knows no price of a bit, from fine to coarse, for one layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from vqzoo.artifact.encode import FIXED_WIDTH
from vqzoo.budget.hull import AnOffer, lower_hull
from vqzoo.compression.options import validate_options
from vqzoo.compression.selection import LayerPlan
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import SkipLayer

# Of fp32 bits; neighbours are near enough: between them, loss + price · bits is 3% above its least.
RATIOS = tuple(4 * 2 ** (step / 2) for step in range(13))


@dataclass(frozen=True, eq=False)
class Rung:
    """One way for a method to store a layer.

    Attributes:
        plan: the layer, and the method with these options.
        bits: what it stores at fixed width; 0 where that is not known beforehand or an entropy
            coder may store less.
    """

    plan: LayerPlan
    bits: int


def rungs(plan: LayerPlan, plugins: Plugins, packing: str | None) -> list[Rung]:
    """The ladder of a layer's method, from fine to coarse: what it chooses for a row of ratios, or,
    where it takes no ratio, `Quantizer.ladder`.

    Args:
        plan: the layer, and a method without options.
        plugins: the installed plugins.
        packing: of the file; None for the method's own.

    Raises:
        PluginError: the method failed.
    """
    entry = plugins.quantizers.get(plan.choice.method)
    m, n = plan.layer.matrix_shape
    exact = (packing or entry.item.packing) == FIXED_WIDTH and not plan.choice.transforms
    distinct: dict[Any, int] = {}
    with isolated(on_layer(entry, plan.layer.name)):
        try:
            if any(True for _ in entry.item.candidates(m, n)):
                for ratio in RATIOS:
                    options = entry.item.options_for(m, n, ratio, {})
                    if options is not None and options not in distinct:
                        bits = entry.item.stored_bits(m, n, options)
                        distinct[options] = bits if exact else 0
            else:
                for values in reversed(entry.item.ladder):
                    options = validate_options(entry.item, values)
                    distinct[entry.item.fit(m, n, options, lambda text: None)] = 0
        except SkipLayer:
            return []
    return [Rung(_with_options(plan, o.model_dump()), bits) for o, bits in distinct.items()]


def _with_options(plan: LayerPlan, options: Mapping[str, Any]) -> LayerPlan:
    return replace(plan, choice=replace(plan.choice, options=options))


class Ladder(Generic[AnOffer]):
    """A layer's rungs by one method, tried as they may win.

    Attributes:
        hull: of those that were tried, the ones that some price makes the cheapest.
    """

    def __init__(self, rungs: Sequence[Rung]) -> None:
        self._rungs = list(rungs)
        self._losses: dict[int, float] = {}
        self.hull: list[AnOffer] = []

    def next_rung(self, price: float, limit: float) -> Rung | None:
        """The finest rung that was not tried and may cost less than `limit` at a price. Its bits
        alone must cost less, and so must the loss of every finer one."""
        for place, rung in enumerate(self._rungs):
            if price * rung.bits >= limit:
                continue
            if place not in self._losses:
                return rung
            if self._losses[place] >= limit:
                return None
        return None

    def tried(self, rung: Rung, offer: AnOffer | None) -> None:
        """Take the result of a rung; None if the layer would stay dense."""
        self._losses[self._rungs.index(rung)] = 0.0 if offer is None else offer.loss
        if offer is not None:
            self.hull = lower_hull([*self.hull, offer])
