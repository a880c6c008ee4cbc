"""One layer as a call for an executor."""

import pickle
import platform
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from vqzoo.compression.selection import LayerPlan
from vqzoo.compression.work import Kept, LayerInput, LayerWork, carry_out
from vqzoo.compression.workers.layer_file import read_layer
from vqzoo.errors import PluginError, PluginWarning, VqzooError, VqzooWarning
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import SilentProgress


@dataclass(frozen=True)
class LayerCall:
    """A layer to compress in another process.

    Attributes:
        plan: the layer and the choice made for it.
        work: the pickle of what to do.
        path: the file with its weight and statistics.
        calibrated: whether there are statistics.
    """

    plan: LayerPlan
    work: bytes
    path: Path
    calibrated: bool


@dataclass(frozen=True)
class LayerAnswer(Generic[Kept]):
    """What became of a layer.

    Attributes:
        outcome: what is kept of it, or why there is nothing to keep.
        notes: lines that the user should see.
        warned: warnings of vqzoo's.
    """

    outcome: Kept | SkipLayer | PluginError
    notes: tuple[str, ...]
    warned: tuple[VqzooWarning, ...]


@dataclass
class _Notes(SilentProgress):
    """Keeps the notes about a layer."""

    texts: list[str] = field(default_factory=list)

    def note(self, layer: str, text: str) -> None:
        """Keep a note."""
        self.texts.append(text)


def compress_called(call: LayerCall) -> LayerAnswer[Any]:
    """Do the work of a call.

    Raises:
        VqzooError: this machine does not see the layer's file.
        UsageError: the method does not take its options.
    """
    notes = _Notes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VqzooWarning)
        warnings.simplefilter("ignore", PluginWarning)  # the driver has loaded the plugins, too
        outcome = _outcome(call, notes)
    warned = (one.message for one in caught if isinstance(one.message, VqzooWarning))
    return LayerAnswer(outcome, tuple(notes.texts), tuple(warned))


def _outcome(call: LayerCall, notes: _Notes) -> Any:
    work: LayerWork[Any] = pickle.loads(call.work)  # loads plugins
    try:
        weight, statistics = read_layer(call.path, calibrated=call.calibrated)
    except FileNotFoundError:
        raise VqzooError(
            f"{platform.node()} does not see {call.path}: put --out on a file system that all "
            "workers share; from Python, TMPDIR"
        ) from None
    try:
        kept, _ = carry_out(work, LayerInput(call.plan, weight, statistics, notes))
    except (SkipLayer, PluginError) as error:
        return error
    return kept
