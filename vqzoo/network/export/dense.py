"""Dense weights, as timm and torchvision load them."""

from pathlib import Path

from torch import nn

from vqzoo.artifact.schema import DENSE_FILE
from vqzoo.artifact.writer import untouched_tensors, write_tensors
from vqzoo.network.export.record import Written

FILE = DENSE_FILE


def write_dense(model: nn.Module, folder: Path) -> Written:
    """Write model.safetensors with every key of the state dict."""
    tensors, aliases = untouched_tensors(model, set())
    tensors |= {
        alias: tensors[key].clone() for alias, key in aliases.items()
    }  # timm loads every key
    write_tensors(folder / FILE, tensors, {"format": "pt"})
    return Written()
