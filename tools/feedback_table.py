"""Print what error feedback saves on the embedded network, layer by layer at equal bits.

Run `python -m tools.feedback_table`. Each figure is tr(E H Eᵀ), rows weighted by g, with error
feedback over what it is without: the same method with products of inputs only within its
sub-vectors and with equal rows, as calibration was before it knew of error feedback.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.second_order.statistics import second_order
from vqzoo.compression.layer import compress_layer
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import compressible_layers, layer_weight
from vqzoo.compression.work import LayerInput
from vqzoo.data.calibration_data import CALIBRATION_IMAGES, open_calibration_data
from vqzoo.models.dense import find_model
from vqzoo.numerics.feedback.layer import feedback_loss
from vqzoo.plugin.manager import installed_plugins
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import SilentProgress, SilentWatcher

MODEL = "alexnet_mini.fmnist"


@dataclass(frozen=True)
class Case:
    """A method with options, and the columns of its sub-vectors."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 1

    @property
    def label(self) -> str:
        """As on the command line."""
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.options.items())])


CASES = (
    Case("km", {"k": 16}),
    Case("km", {"k": 4}),
    Case("pq", {"k": 16, "d": 4}, 4),
    Case("pq", {"k": 16, "d": 4, "codebook": "block"}, 4),
    Case("pq", {"k": 16, "d": 4, "axis": "rows"}),
    Case("rq", {"k": 16, "d": 4}, 4),
    Case("rtn", {"format": "int4"}),
    Case("rtn", {"format": "int3"}),
    Case("binary"),
    Case("deep-compression"),
)


@dataclass(frozen=True)
class Measured:
    """The embedded network, its layers and their statistics."""

    model: nn.Module
    layers: Sequence[LayerInfo]
    statistics: Mapping[str, SecondOrder]


def measure(images: int = CALIBRATION_IMAGES) -> Measured:
    """Gather the statistics on embedded training images."""
    model = find_model(MODEL, SilentWatcher()).module
    layers, _ = compressible_layers(model)
    data = open_calibration_data("fmnist", model, images=images)
    return Measured(model, layers, second_order(model, layers, data, images))


def ratios(measured: Measured, case: Case) -> dict[str, float]:
    """Layer -> the loss with error feedback over the loss without."""
    gains: dict[str, float] = {}
    for layer in measured.layers:
        statistics = measured.statistics[layer.name]
        without = _loss(measured, case, layer, without_feedback(statistics, case.width))
        gains[layer.name] = _loss(measured, case, layer, statistics) / without
    return gains


def without_feedback(statistics: SecondOrder, width: int) -> SecondOrder:
    """The statistics with no products but those within `width` columns, and equal row weights."""
    blocks: list[Tensor] = []
    for block in statistics.hessian:
        place = torch.arange(block.shape[1]) // width
        blocks.append(block.where(place[:, None] == place, 0.0))
    return SecondOrder(tuple(blocks), torch.ones_like(statistics.row_weights))


def _loss(measured: Measured, case: Case, layer: LayerInfo, statistics: SecondOrder) -> float:
    weight = layer_weight(measured.model, layer.name)
    plan = LayerPlan(layer, MethodChoice(case.method, case.options))
    given = LayerInput(plan, weight, Statistics(second_order=statistics), SilentProgress())
    _, decoded = compress_layer(
        given, plugins=installed_plugins(), seed=0, device=torch.device("cpu")
    )
    truth = measured.statistics[layer.name]
    return feedback_loss(weight.flatten(1) - decoded, truth.hessian, truth.row_weights)


def main() -> None:
    """Print the table as Markdown."""
    measured = measure()
    print("|", " | ".join(["method", *(layer.name for layer in measured.layers)]), "|")
    print("|", " | ".join(["---"] * (1 + len(measured.layers))), "|")
    for case in CASES:
        cells = [f"{ratio:.2f}" for ratio in ratios(measured, case).values()]
        print("|", " | ".join([f"`{case.label}`", *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
