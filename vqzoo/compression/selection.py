"""Which layers to compress, by what method: selectors, exclusions and rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vqzoo.errors import PluginError, UsageError, did_you_mean
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.registry import Registered
from vqzoo.plugin.selector import LayerInfo, LayerSelector


@dataclass(frozen=True)
class TransformChoice:
    """A transform, by its registered name, and its options as given."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodChoice:
    """A method and what was asked of it.

    Attributes:
        method: registered name, perhaps `distribution:name`.
        options: as given; text values are converted by the method's Options.
        ratio: wanted ratio; None where none was asked for.
        transforms: transforms to run before it, the first one first.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ratio: float | None = None
    transforms: tuple[TransformChoice, ...] = ()


@dataclass(frozen=True)
class LayerPlan:
    """A layer and the choice made for it."""

    layer: LayerInfo
    choice: MethodChoice


def plan_layers(
    layers: Sequence[LayerInfo],
    selection: Sequence[str],
    choice: MethodChoice | None,
    rules: Sequence[tuple[str, MethodChoice]],
    plugins: Plugins,
) -> tuple[list[LayerPlan], dict[str, str]]:
    """Decide for each layer.

    `selection` holds selector texts, joined; one that begins with `!` excludes. With nothing but
    exclusions, all other layers are chosen. A rule's layers are compressed whether selected or
    not, the last rule that matches wins, and exclusions win over everything.

    Returns:
        The plans in the model's order, and name -> reason for every layer left out.

    Raises:
        UsageError: a selector is unknown or matches nothing.
    """
    included = [text for text in selection if not text.startswith("!")]
    excluded: dict[str, str] = {}
    for text in selection:
        if text.startswith("!"):
            excluded |= dict.fromkeys(_match(layers, text[1:], plugins), f"excluded by {text}")
    chosen: set[str] = set()
    if choice is not None:
        for text in included:
            chosen |= set(_match(layers, text, plugins))
        if not included:
            chosen = {layer.name for layer in layers}
    ruled: dict[str, MethodChoice] = {}
    for text, rule_choice in rules:
        ruled |= dict.fromkeys(_match(layers, text, plugins), rule_choice)

    plans: list[LayerPlan] = []
    skipped: dict[str, str] = {}
    for layer in layers:
        if layer.name in excluded:
            skipped[layer.name] = excluded[layer.name]
        elif layer.name in ruled:
            plans.append(LayerPlan(layer, ruled[layer.name]))
        elif choice is not None and layer.name in chosen:
            plans.append(LayerPlan(layer, choice))
        else:
            asked = ",".join(included) if choice is not None else "any rule"
            skipped[layer.name] = f"{layer.kind}, not selected by {asked}"
    if not plans:
        raise UsageError("every layer is excluded: nothing is left to compress")
    return plans, skipped


def _match(layers: Sequence[LayerInfo], text: str, plugins: Plugins) -> Mapping[str, str]:
    """The layers that one selector text chooses; an exact selector name comes first.

    `distribution:name` and `distribution:name:argument` say whose selector is meant.
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
            plugins.selectors.get(text)  # says which selectors there are
        chosen = min(accepting, key=lambda entry: entry.item.catch_all)
    who = f"layer selector {named(chosen)}"
    with isolated(who):
        matched = dict(chosen.item.select(layers, text))
        unknown = [name for name in matched if name not in {layer.name for layer in layers}]
    if unknown:
        raise PluginError(f"{who} chose {unknown!r:.200}, not in the model")
    bad = [reason for reason in matched.values() if not isinstance(reason, str)]
    if bad:
        raise PluginError(f"{who} gave the reason {bad[0]!r:.200}, which is not text")
    if not matched:
        raise UsageError(_nothing_matches(layers, text, plugins))
    return matched


def _accepts(entry: Registered[LayerSelector], text: str) -> bool:
    with isolated(f"layer selector {named(entry)}"):
        return bool(entry.item.accepts(text))


def _nothing_matches(layers: Sequence[LayerInfo], text: str, plugins: Plugins) -> str:
    names = [layer.name for layer in layers]
    hint = did_you_mean(text, names + plugins.selectors.names())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return (
        f"{text!r} matches no layer{hint} "
        f"Layers: {shown}. Selectors: {', '.join(plugins.selectors.names())}"
    )
