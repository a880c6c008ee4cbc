"""How much of a network's weights was compressed, and why the rest was not."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vqzoo.compression.view import is_matrix, weight_key

VECTORS = "biases, norms and other vectors"
_LOW = 0.5  # share of the weights below which the user is warned
_REASONS = 3  # of a summary


@dataclass(frozen=True)
class Coverage:
    """An account of every parameter of a network; shared ones count once.

    Attributes:
        parameters: how many numbers all parameters hold.
        compressed: how many of them are compressed.
        dense: reason -> how many stayed dense for it, most of them first.
    """

    parameters: int
    compressed: int
    dense: Mapping[str, int]

    @property
    def share(self) -> float:
        """The compressed share, 0 to 1."""
        return self.compressed / max(1, self.parameters)

    @property
    def low(self) -> bool:
        """Whether less than half is compressed."""
        return self.share < _LOW

    @property
    def summary(self) -> str:
        """The share in words: "only 3.1% of 25,557,032 weights are compressed"."""
        only = "only " if self.low else ""
        return f"{only}{percent(self.share)} of {self.parameters:,} weights are compressed"

    def __str__(self) -> str:
        """The share and the most frequent reasons, on one line."""
        parts = [f"{percent(count / self.parameters)} {why}" for why, count in self.dense.items()]
        reasons = f"; dense: {', '.join(parts[:_REASONS])}" if parts else ""
        return self.summary + reasons


def account(model: nn.Module, compressed: Collection[str], skipped: Mapping[str, str]) -> Coverage:
    """Account for every parameter of a network.

    Args:
        model: the network.
        compressed: names of its compressed layers.
        skipped: layer or parameter -> why it stayed dense.
    """
    taken = {id(model.get_parameter(weight_key(name))) for name in compressed}
    weights = {weight_key(name): reason for name, reason in skipped.items()}
    done, dense = 0, Counter[str]()
    for name, parameter in model.named_parameters():
        if id(parameter) in taken:
            done += parameter.numel()
        else:
            reason = weights.get(name) or _reason(name, parameter, skipped)
            dense[reason] += parameter.numel()
    return Coverage(done + dense.total(), done, dict(dense.most_common()))


def percent(share: float) -> str:
    """A share as text; a small one does not become 0."""
    return f"{100 * share:.1f}%" if share == 0 or share >= 0.001 else f"{100 * share:.2g}%"


def _reason(name: str, parameter: Tensor, skipped: Mapping[str, str]) -> str:
    """Why a parameter that is no skipped layer's weight stayed dense."""
    if name in skipped:
        return skipped[name]
    if not is_matrix(parameter):
        return VECTORS
    path = name
    while path:
        path = path.rpartition(".")[0]
        if path in skipped:
            return skipped[path]
    return "for a reason that was not recorded"
