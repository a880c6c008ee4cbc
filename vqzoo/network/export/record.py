"""What an export wrote, and how it was checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Weights = Literal["codes", "dense", "packed"]
Tables = Literal["float16", "int8"]


@dataclass(frozen=True)
class Check:
    """The comparison of what was written with the artifact, on random images.

    Attributes:
        runtime: what ran it, with its version.
        error: the largest difference of a logit from the artifact's, relative to the largest
            logit.
        tolerance: the largest error that is accepted.
        compared: "logits"; or "weights", where nothing here can run what was written. Their errors
            are relative to the largest of their layer.
    """

    runtime: str
    error: float
    tolerance: float
    compared: Literal["logits", "weights"] = "logits"


@dataclass(frozen=True)
class DenseWeight:
    """A compressed weight that a runtime cannot decode.

    Attributes:
        key: in the network's state dict.
        bytes: that it takes in float16.
        reason: why it is dense.
    """

    key: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class Written:
    """What a format's writer says of its file.

    Attributes:
        check: None where the artifact's weights are copied bit by bit.
        facts: versions and the like, for the record.
        dense: compressed weights that are written dense.
        notes: sentences for people, on what the file does in its runtime.
    """

    check: Check | None = None
    facts: tuple[tuple[str, int | str | float], ...] = ()
    dense: tuple[DenseWeight, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        format: "dense", "onnx", "web", "pt2", "pte", "openvino", "coreml" or "coreai".
        weights: whether the weights are "codes", decoded by the network itself, "dense", or
            "packed", codes that the runtime multiplies by.
        files: the files of the folder, sorted.
        bytes: of the file that holds the network.
        artifact_bytes: of the artifact's vqzoo.safetensors.
        written: what the format's writer says.
    """

    format: str
    weights: Weights
    files: tuple[Path, ...]
    bytes: int
    artifact_bytes: int
    written: Written
