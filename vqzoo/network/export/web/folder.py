"""Write the static folder of a page that classifies pictures."""

import gzip
import json
import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from torch import nn

from vqzoo.artifact.files import cache_folder, write_bytes, write_text
from vqzoo.data.model_input import input_of
from vqzoo.errors import UsageError
from vqzoo.network.export import onnx
from vqzoo.network.export.record import Written
from vqzoo.network.export.web.runtime import runtime_files

FILE = "model.onnx.gz"
_PAGE = ("index.html", "page.css", "page.js", "picture.js")
_NOTE = "The page needs a web server, as `python -m http.server --directory` with this folder."
_INTERPOLATIONS = ("bilinear", "bicubic")


def write_web(model: nn.Module, dense: nn.Module, folder: Path) -> Written:
    """Write a page, the network as compressed ONNX, and the runtime beside it.

    Args:
        model: the network, its weights dense or decoded by its own operations.
        dense: another copy of the network, with decoded weights.
        folder: where to write.

    Raises:
        UsageError: the page cannot prepare images as the network wants them.
        VqzooError: torch cannot export the network, the file computes something else, or the
            runtime cannot be downloaded.
    """
    description = _description(dense)
    runtime = runtime_files(cache_folder())
    written = onnx.write_onnx(model, dense, folder)
    plain = folder / onnx.FILE
    write_bytes(folder / FILE, gzip.compress(plain.read_bytes(), 9, mtime=0))
    plain.unlink()
    write_text(folder / "network.json", json.dumps(description, indent=1) + "\n")
    for name in _PAGE:
        content = files(__package__).joinpath("page", name).read_text(encoding="utf-8")
        write_text(folder / name, content)
    (folder / "runtime").mkdir()
    for name, data in runtime.items():
        write_bytes(folder / "runtime" / name, data)
    return replace(written, notes=(*written.notes, _NOTE))


def _description(model: nn.Module) -> dict[str, object]:
    """What the page must know: how to prepare pictures, and the names of the classes.

    Raises:
        UsageError: the page cannot prepare images so.
    """
    wanted = input_of(model)
    config = wanted.config
    channels, height, width = config["input_size"]
    if config["interpolation"] not in _INTERPOLATIONS or config["crop_mode"] != "center":
        raise UsageError(
            f"the page resizes pictures {' or '.join(_INTERPOLATIONS)} and crops their center; the "
            f"network wants {config['interpolation']} and {config['crop_mode']}"
        )
    if height != width:
        raise UsageError(f"the page crops squares; the network takes {height} x {width} pixels")
    cfg = getattr(model, "pretrained_cfg", None) or {}
    classes = wanted.num_classes or 0
    labels = list(wanted.label_names) or [f"class {place}" for place in range(classes)]
    return {
        "name": str(cfg.get("architecture") or type(model).__name__),
        "channels": channels,
        "crop": width,
        "resize": math.floor(width / config["crop_pct"]),
        "interpolation": config["interpolation"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "labels": labels,
    }
