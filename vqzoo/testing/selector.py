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
    """A selector and a text that it should read."""

    selector: LayerSelector
    text: str

    def chosen(self, layers: tuple[LayerInfo, ...] = LAYERS) -> Mapping[str, str]:
        """What it chooses."""
        return self.selector.select(layers, self.text)


def it_accepts_the_text(trial: Trial) -> None:
    """`accepts` says yes to the texts that `select` reads."""
    require(trial.selector.accepts(trial.text), f"it does not accept {trial.text!r}")
    require(bool(trial.selector.summary), "it has no summary for the help")


def it_chooses_something(trial: Trial) -> None:
    """The text given to `check_selector` chooses at least one of the kit's layers
    (`vqzoo.testing.selector.LAYERS`)."""
    require(bool(trial.chosen()), f"{trial.text!r} chooses nothing")


def it_chooses_among_the_layers(trial: Trial) -> None:
    """Only names of the layers that it was given, each with a reason in words."""
    names = {layer.name for layer in LAYERS}
    for name, reason in trial.chosen().items():
        require(name in names, f"it chose {name!r}, which it was not given")
        require(isinstance(reason, str) and bool(reason), f"it chose {name!r} for no reason")


def it_chooses_the_same_again(trial: Trial) -> None:
    """A second call chooses the same: a recipe must mean the same tomorrow."""
    require(dict(trial.chosen()) == dict(trial.chosen()), "the second choice differs")


def no_layers_give_no_choice(trial: Trial) -> None:
    """Where there is nothing to choose from, nothing is chosen (or a UsageError says why)."""
    try:
        require(not trial.chosen(()), "it chose something out of nothing")
    except UsageError:
        return


SELECTOR_RULES: tuple[Callable[[Trial], None], ...] = (
    it_accepts_the_text,
    it_chooses_something,
    it_chooses_among_the_layers,
    it_chooses_the_same_again,
    no_layers_give_no_choice,
)


def check_selector(selector: LayerSelector | type[LayerSelector], *texts: str) -> None:
    """Try what the contract promises of a layer selector.

    Args:
        selector: the class, or an instance.
        *texts: what users may write, each choosing something among `LAYERS`; its name alone by
            default.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each rule that was broken.
    """
    made = selector() if isinstance(selector, type) else selector
    for text in texts or (made.name,):
        check_rules(
            f"{type(made).__name__} on {text!r}", SELECTOR_RULES, partial(Trial, made, text)
        )
