"""What is compressed under a budget, and what the budget is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vqzoo.artifact.schema import Layout, Rest
from vqzoo.compression.selection import LayerPlan
from vqzoo.compression.workers.pool import LayerWorkers
from vqzoo.data.batches import Data
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins


@dataclass(frozen=True)
class Task:
    """A network to compress under a budget.

    Attributes:
        model: the dense network.
        plans: the layers to compress, and the methods that each may have.
        dense_layers: how many other layers stay dense.
        plugins: the installed plugins.
        seed: the run's.
        device: where to compute.
        packing: name of the packing for integer codes; None for that of each method.
        rest: how the file stores tensors that stay dense.
        features: what the file requires of its readers; see `required_features`.
        layout: how the file is laid out.
        norms: batch norm -> the layer that it is folded into; None where norms are not folded.
        calibration: images to calibrate with, if any.
        sequential: gather H behind the layers compressed before, at the price that is found.
        repair: images to repair the network with before it is judged, if any.
        held_out: images that judge the network; a limit on its loss needs them.
        finetune: given a price and the code of each layer at it, fine-tunes the network and returns
            it decoded; None if what is judged is not fine-tuned.
        keep_going: leave a layer dense if its plugin fails, and continue.
        keep_going_option: how the user asks for that, for the error message.
        workers: where layers are compressed; None for this process.
    """

    model: nn.Module
    plans: Sequence[LayerPlan]
    dense_layers: int
    plugins: Plugins
    seed: int
    device: torch.device
    packing: str | None
    rest: Rest
    features: Sequence[str]
    layout: Layout
    norms: Mapping[str, str] | None
    calibration: Data | None
    sequential: bool
    repair: Data | None
    held_out: Data | None
    finetune: Callable[[float, Mapping[str, MethodCode]], nn.Module] | None
    keep_going: bool
    keep_going_option: str
    workers: LayerWorkers | None = None


@dataclass(frozen=True)
class Limit:
    """What the price of a bit is chosen for; one of the last four is not None.

    Attributes:
        option: the option that sets it, as the user spells it: "--size".
        text: the option with its value: "--size 2.3MB".
        size: bytes that the file may have.
        max_kl: nats by which answers may diverge on held-out images.
        max_drop: points of top-1 that may be lost on held-out images.
        price: the price itself, in squared logits.
    """

    option: str
    text: str
    size: int | None = None
    max_kl: float | None = None
    max_drop: float | None = None
    price: float | None = None
