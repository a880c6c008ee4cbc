"""The conformance kit's rules for layer selectors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from vqzoo.errors import UsageError
from vqzoo.plugin.selector import LayerInfo, LayerSelector
from vqzoo.testing.broken import check_rules, require

LAYERS = (
    LayerInfo("stem", "conv2d", (16, 3, 3, 3)),
    LayerInfo("blocks.0.depthwise", "conv2d", (16, 1, 3, 3), 16),
    LayerInfo("blocks.0.pointwise", "conv2d", (32, 16, 1, 1)),
    LayerInfo("blocks.1.attn.qkv", "linear", (96, 32)),
    LayerInfo("blocks.1.mlp.fc1", "linear", (128, 32)),
    LayerInfo("blocks.1.mlp.fc2", "linear", (32, 128)),
    LayerInfo("filters", "conv1d", (8, 4, 5)),
    LayerInfo("head", "linear", (10, 32)),
)


@dataclass(frozen=True)
class Trial:
    """A selector, and a text that it should accept."""

    selector: LayerSelector
    text: str

    def select(self, layers: tuple[LayerInfo, ...] = LAYERS) -> Mapping[str, str]:
        """The selector's choice among layers: name -> reason."""
        return self.selector.select(layers, self.text)


def it_accepts_the_text(trial: Trial) -> None:
    """`accepts` returns True for every text that `select` can read, and `summary` is a line for the
    help."""
    require(trial.selector.accepts(trial.text), f"it does not accept {trial.text!r}")
    require(bool(trial.selector.summary), "its summary is empty")


def it_chooses_something(trial: Trial) -> None:
    """The text given to `check_selector` chooses at least one of the kit's layers
    (`vqzoo.testing.selector.LAYERS`)."""
    require(bool(trial.select()), f"{trial.text!r} chooses nothing")


def it_chooses_only_given_layers(trial: Trial) -> None:
    """`select` returns only names of the layers that it was given, each with a reason in words."""
    names = {layer.name for layer in LAYERS}
    for name, reason in trial.select().items():
        require(name in names, f"it chose {name!r}, which is not among the layers")
        require(isinstance(reason, str) and bool(reason), f"it chose {name!r} without a reason")


def selection_is_deterministic(trial: Trial) -> None:
    """A second call of `select` returns the same choice: a recipe must always mean the same."""
    require(dict(trial.select()) == dict(trial.select()), "the second call chose other layers")


def without_layers_it_chooses_none(trial: Trial) -> None:
    """`select` chooses nothing if there are no layers, or raises a UsageError that says why."""
    try:
        require(not trial.select(()), "it chose something although there were no layers")
    except UsageError:
        return


SELECTOR_RULES: tuple[Callable[[Trial], None], ...] = (
    it_accepts_the_text,
    it_chooses_something,
    it_chooses_only_given_layers,
    selection_is_deterministic,
    without_layers_it_chooses_none,
)


def check_selector(selector: LayerSelector | type[LayerSelector], *texts: str) -> None:
    """Check a layer selector against the contract.

    Args:
        selector: the class, or an instance.
        *texts: texts as users may write them, each of which chooses something among `LAYERS`; the
            selector's name by default.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule.
    """
    instance = selector() if isinstance(selector, type) else selector
    for text in texts or (instance.name,):
        check_rules(
            f"{type(instance).__name__} on {text!r}",
            SELECTOR_RULES,
            partial(Trial, instance, text),
        )
