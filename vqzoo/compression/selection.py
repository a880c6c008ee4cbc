"""Choose layers and their methods: selectors, exclusions and rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vqzoo.errors import PluginError, UsageError, did_you_mean
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.registry import Registered
from vqzoo.plugin.selector import LayerInfo, LayerSelector


@dataclass(frozen=True)
class TransformChoice:
    """A transform's registered name, and its options as the user gave them."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodChoice:
    """A method and the user's request to it.

    Attributes:
        method: its registered name, perhaps `distribution:name`.
        options: as the user gave them; the method's Options converts text.
        ratio: the target ratio, None without one.
        transforms: transforms to run before the method, in order.
        others: further methods, of which a budget chooses one for each layer.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ratio: float | None = None
    transforms: tuple[TransformChoice, ...] = ()
    others: tuple[str, ...] = ()

    def each(self) -> "tuple[MethodChoice, ...]":
        """The method and the others, each by itself."""
        return tuple(replace(self, method=name, others=()) for name in (self.method, *self.others))


@dataclass(frozen=True)
class LayerPlan:
    """A layer to compress, and the choice made for it."""

    layer: LayerInfo
    choice: MethodChoice


def plan_layers(
    layers: Sequence[LayerInfo],
    selection: Sequence[str],
    choice: MethodChoice | None,
    rules: Sequence[tuple[str, MethodChoice]],
    plugins: Plugins,
    passed_over: Mapping[str, str] | None = None,
) -> tuple[list[LayerPlan], dict[str, str]]:
    """Decide which layers to compress, and how.

    The layers of a rule are compressed whether they are selected or not. Where several rules match,
    the last one wins, and exclusions win over everything.

    Args:
        layers: the model's layers.
        selection: selector texts, of which a layer has to match one; a text that begins with `!`
            excludes. Exclusions alone select all other layers.
        choice: the method for the selected layers; None if there are rules alone.
        rules: selector texts and the methods for their layers.
        plugins: the installed selectors.
        passed_over: name -> reason of the layers that cannot be compressed, for messages.

    Returns:
        The plans in the model's order, and name -> reason for every layer that is left out.

    Raises:
        UsageError: the model has no layer to compress, a selector is unknown or matches nothing,
            or every layer is excluded.
        PluginError: a selector failed or broke its contract.
    """
    passed_over = passed_over or {}
    if not layers:
        raise UsageError(_no_layers(passed_over))
    included = [text for text in selection if not text.startswith("!")]
    excluded: dict[str, str] = {}
    for text in selection:
        if text.startswith("!"):
            excluded |= dict.fromkeys(
                _match(layers, text[1:], plugins, passed_over), f"excluded by {text}"
            )
    chosen: set[str] = set()
    if choice is not None:
        for text in included:
            chosen |= set(_match(layers, text, plugins, passed_over))
        if not included:
            chosen = {layer.name for layer in layers}
    by_rule: dict[str, MethodChoice] = {}
    for text, rule_choice in rules:
        by_rule |= dict.fromkeys(_match(layers, text, plugins, passed_over), rule_choice)

    plans: list[LayerPlan] = []
    skipped: dict[str, str] = {}
    for layer in layers:
        if layer.name in excluded:
            skipped[layer.name] = excluded[layer.name]
        elif layer.name in by_rule:
            plans.append(LayerPlan(layer, by_rule[layer.name]))
        elif choice is not None and layer.name in chosen:
            plans.append(LayerPlan(layer, choice))
        else:
            selectors = ",".join(included) if choice is not None else "any rule"
            skipped[layer.name] = f"{layer.kind}, not selected by {selectors}"
    if not plans:
        raise UsageError("every layer is excluded: nothing is left to compress")
    return plans, skipped


def _match(
    layers: Sequence[LayerInfo], text: str, plugins: Plugins, passed_over: Mapping[str, str]
) -> Mapping[str, str]:
    """The layers that one selector text chooses, each with a reason.

    A selector's exact name comes before patterns. `distribution:name` and
    `distribution:name:argument` choose between selectors of the same name.
    """
    name, _, rest = text.partition(":")
    qualified = f"{name}:{rest.partition(':')[0]}"
    if plugins.selectors.claims(qualified):
        chosen, text = plugins.selectors.get(qualified), rest
    elif name in plugins.selectors.names():
        chosen = plugins.selectors.get(name)
    else:
        accepting = [entry for entry in plugins.selectors if _accepts(entry, text)]
        if not accepting:
            plugins.selectors.get(text)  # raises, and lists the selectors
        chosen = min(accepting, key=lambda entry: entry.item.catch_all)
    who = f"layer selector {named(chosen)}"
    with isolated(who):
        matched = dict(chosen.item.select(layers, text))
        unknown = [name for name in matched if name not in {layer.name for layer in layers}]
    if unknown:
        raise PluginError(f"{who} chose {unknown!r:.200}, which the model does not have")
    bad = [reason for reason in matched.values() if not isinstance(reason, str)]
    if bad:
        raise PluginError(f"{who} returned the reason {bad[0]!r:.200}, which is not text")
    if not matched:
        raise UsageError(_nothing_matches(layers, text, plugins, passed_over))
    return matched


def _accepts(entry: Registered[LayerSelector], text: str) -> bool:
    with isolated(f"layer selector {named(entry)}"):
        return bool(entry.item.accepts(text))


def _no_layers(passed_over: Mapping[str, str]) -> str:
    if not passed_over:
        return "the network has no layer that can be compressed"
    name, reason = next(iter(passed_over.items()))
    return f"the network has no layer that can be compressed; {name or 'the network'}: {reason}"


def _nothing_matches(
    layers: Sequence[LayerInfo], text: str, plugins: Plugins, passed_over: Mapping[str, str]
) -> str:
    if text in passed_over:
        return f"{text} cannot be compressed: {passed_over[text]}"
    names = [layer.name for layer in layers]
    selectors = plugins.selectors.names()
    hint = did_you_mean(text, [name for name in names + selectors if name != text])
    kinds = ", ".join(dict.fromkeys(layer.kind for layer in layers))
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if text.partition(":")[0] in selectors:  # spelled well: the model is what lacks such layers
        hint = f": the network has {kinds} layers only."
    return f"{text!r} matches no layer{hint} Layers: {shown}. Selectors: {', '.join(selectors)}"
