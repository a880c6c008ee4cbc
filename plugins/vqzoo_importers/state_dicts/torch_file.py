"""Files of tensors by name: those of safetensors, and those that `torch.save` wrote, of which
nothing is executed."""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqzoo.errors import VqzooError, one_line

_HEADS = ("rpn.head.", "roi_heads.")  # of torchvision's Mask R-CNN


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping, by name, that a file of `torch.save` holds.

    Raises:
        VqzooError: the file is damaged, holds objects other than tensors and plain containers, or
            something else than a mapping.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of its own storage of quantized tensors
            value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a hostile file: anything
        raise VqzooError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise VqzooError(f"{path} holds a {type(value).__name__}, not a mapping by name")
    return dict(value)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        VqzooError: the file is damaged, or none.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise VqzooError(f"{path} is no safetensors file: {one_line(error)}") from None


def refuse_detector(path: Path, names: Iterable[str]) -> None:
    """Refuse torchvision's Mask R-CNN, which both papers on codes of ResNets publish as well.

    Raises:
        VqzooError: a name is one of its heads.
    """
    if any(name.startswith(_HEADS) for name in names):
        raise VqzooError(
            f"{path} is a detector of torchvision (Mask R-CNN), and timm has no such network: "
            "classifiers alone are imported"
        )


def _reason(error: Exception) -> str:
    """Why torch refused a file, without its advice to unpickle whatever there is."""
    if not isinstance(error, UnpicklingError):
        return one_line(error)
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"a {refused[1]} object" if refused else "something else"
    return f"it holds {what}; tensors, numbers and texts alone are unpickled"
