"""What is done with each layer, whichever process does it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan
from vqzoo.numerics.threads import one_thread_each
from vqzoo.progress import Progress

Kept = TypeVar("Kept")
NOT_REACHED = "calibration does not reach it: its inputs were not seen"


@dataclass(frozen=True)
class LayerInput:
    """What compressing one layer takes.

    Attributes:
        plan: the layer and the choice made for it.
        weight: as the network has it.
        statistics: what calibration says about the layer; None without calibration, or where it
            does not reach the layer.
        progress: told of the method's steps and of notes.
    """

    plan: LayerPlan
    weight: Tensor
    statistics: Statistics | None
    progress: Progress


LayerWork = Callable[[LayerInput], tuple[Kept, Tensor]]
"""Compresses a layer: what to keep of it, and its decoded matrix (m, n). It raises SkipLayer or
PluginError where the layer cannot be compressed. To run in other processes, it has to pickle, and
so does what is kept."""


def carry_out(work: LayerWork[Kept], layer: LayerInput) -> tuple[Kept, Tensor]:
    """Do a layer's work, so that the result does not depend on the number of threads.

    Raises:
        SkipLayer: the layer stays dense; the message says why.
        UsageError: the method does not take its options.
        PluginError: a plugin failed.
    """
    with one_thread_each():
        return work(layer)
