"""Programs of torch.export (.pt2), which torch runs without vqzoo, timm or the network's source."""

import zipfile
from pathlib import Path

import torch
from torch import nn

from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.halves import store_halves
from vqzoo.network.export.record import Written
from vqzoo.network.export.traces import remove_traces

FILE = "model.pt2"


def write_program(model: nn.Module, dense: nn.Module, folder: Path) -> Written:
    """Write model.pt2 for any batch size, and run it with torch.

    float32 parameters whose values float16 holds exactly are stored as float16.

    Args:
        model: the network, its weights dense or decoded by its own operations; it is changed.
        dense: another copy of the network, with decoded weights.
        folder: where to write.

    Raises:
        VqzooError: torch cannot export the network, or the file computes something else.
    """
    store_halves(model)
    try:
        program = torch.export.export(
            model,
            (example_images(model, 2),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
        )
    except Exception as error:
        raise VqzooError(f"torch cannot export this network: {one_line(error)}") from error
    remove_traces(program)
    torch.export.save(program, folder / FILE)
    _deflate_texts(folder / FILE)
    run = torch.export.load(folder / FILE).module()
    check = compare(run, dense, f"torch {torch.__version__}", FILE, TOLERANCE)
    return Written(check, (("torch", str(torch.__version__)),))


def _deflate_texts(path: Path) -> None:
    """Compress the JSON in a program, most of it the graph, as zip files may; torch stores it."""
    stored = path.rename(path.with_suffix(".stored"))
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            text = entry.filename.endswith(".json")
            compression = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            target.writestr(entry, source.read(entry), compression)
    stored.unlink()
