"""Programs of ExecuTorch (.pte), with weights that they decode themselves, or dense."""

from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.elsewhere import runner_elsewhere
from vqzoo.network.export.pte.lower import lower
from vqzoo.network.export.record import Written
from vqzoo.report.formatting import count_of

FILE = "model.pte"
PACKAGES = ("executorch",)
_RUN = "vqzoo.network.export.pte.run"


def write_pte(model: nn.Module, dense: nn.Module, folder: Path) -> Written:
    """Write model.pte for one image, and run it with ExecuTorch.

    Args:
        model: the network, its weights dense or decoded by its own operations.
        dense: another copy of the network, with decoded weights.
        folder: where to write.

    Raises:
        VqzooError: ExecuTorch cannot compile the network or run the file, or the file computes
            something else.
    """
    lowered = lower(model, example_images(model, 1))
    (folder / FILE).write_bytes(lowered.buffer)
    runtime = f"ExecuTorch {version('executorch')}"
    run = runner_elsewhere(_RUN, folder / FILE, runtime)
    check = compare(run, dense, runtime, FILE, TOLERANCE)
    portable = (f"{name} {count}" for name, count in lowered.portable.items())
    alone = sum(lowered.portable.values())
    facts = (
        ("executorch", version("executorch")),
        ("torch", str(torch.__version__)),
        ("xnnpack_parts", lowered.delegates),
        ("xnnpack_operations", lowered.delegated),
        ("portable_operations", alone),
        ("portable", ", ".join(portable)),
    )
    parts = count_of(lowered.delegates, "part")
    note = f"XNNPACK runs {lowered.delegated} operations, in {parts}; ExecuTorch itself {alone}."
    return Written(check, facts, notes=(note,))
