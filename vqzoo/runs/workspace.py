"""The folder of a run: `.partial` until it is whole, taken up again when broken off."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from vqzoo.artifact.encode import EncodedLayer, tensors_sha256
from vqzoo.artifact.files import canonical_json, write_text
from vqzoo.artifact.folder import REQUEST_FILE, partial_folder, put_in_place, request_digest
from vqzoo.artifact.header import read_header, strict_json
from vqzoo.artifact.schema import REPORT_FILE
from vqzoo.artifact.writer import write_tensors
from vqzoo.errors import ArtifactError

_LAYERS = "layers"


@dataclass(frozen=True)
class Workspace:
    """Where a run works.

    Attributes:
        target: the finished folder.
        partial: the folder until then.
        resumed: whether an earlier run left layers in it.
    """

    target: Path
    partial: Path
    resumed: bool


def default_folder(model: str, label: str, digest: str) -> Path:
    """`<model>-<method>-<short hash of what was asked>` in the working directory."""
    return Path(re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model}-{label}-{digest[:8]}"))


def finished_record(target: Path, digest: str) -> dict[str, Any] | None:
    """The record of a finished folder, if it is of the very same run and no plugin failed in it."""
    report = target / REPORT_FILE
    if not report.is_file():
        return None
    record = json.loads(report.read_text(encoding="utf-8"))
    if record.get("asked_sha256") != digest:
        return None
    broken = any(str(why).startswith("failed:") for why in record.get("skipped", {}).values())
    return None if broken else record


def open_workspace(target: Path, digest: str) -> Workspace:
    """Make the `.partial` folder, or take up the one that the same run left; another's goes."""
    partial = partial_folder(target)
    if partial.exists() and request_digest(partial) != digest:
        shutil.rmtree(partial)
    (partial / _LAYERS).mkdir(parents=True, exist_ok=True)
    resumed = any((partial / _LAYERS).rglob("*.safetensors"))
    write_text(partial / REQUEST_FILE, json.dumps({"sha256": digest}))
    return Workspace(target, partial, resumed)


def stage_workspace(work: Workspace, index: int | None) -> Workspace:
    """Where a stage of a run keeps its layers; None for the last, whose place is the run's."""
    if index is None:
        return replace(work, resumed=False)
    partial = work.partial / _LAYERS / f"stage-{index}"
    (partial / _LAYERS).mkdir(parents=True, exist_ok=True)
    return Workspace(work.target, partial, False)


def finetuning_checkpoint(work: Workspace) -> Path:
    """Where fine-tuning keeps what it has reached."""
    return work.partial / _LAYERS / "finetuning.pt"


def save_layer(work: Workspace, index: int, encoded: EncodedLayer, row: Mapping[str, Any]) -> None:
    """Keep a finished layer."""
    note = canonical_json({"key": encoded.key, "entry": encoded.entry, "row": row})
    write_tensors(_layer_path(work, index), encoded.tensors, {"layer": note})


def saved_layer(work: Workspace, index: int) -> tuple[EncodedLayer, dict[str, Any]] | None:
    """A layer that an earlier run finished; None where there is none or it was cut short."""
    path = _layer_path(work, index)
    if not path.exists():
        return None
    try:
        note = strict_json(read_header(path).metadata["layer"], path.name)
        tensors = load_file(path)
        encoded = EncodedLayer(note["key"], note["entry"], tensors)
    except (ArtifactError, SafetensorError, KeyError):
        path.unlink()  # cut short: it is made again
        return None
    if tensors_sha256(tensors) != encoded.entry["sha256"]:
        path.unlink()
        return None
    return encoded, note["row"]


def finish(work: Workspace) -> None:
    """Drop what only resuming needs and give the folder its name; an old one goes last."""
    shutil.rmtree(work.partial / _LAYERS)
    (work.partial / REQUEST_FILE).unlink()
    put_in_place(work.partial, work.target)


def abandon_if_empty(work: Workspace) -> None:
    """Leave nothing behind when not one layer or epoch was finished."""
    if not any(path.is_file() for path in (work.partial / _LAYERS).rglob("*")):
        shutil.rmtree(work.partial)


def _layer_path(work: Workspace, index: int) -> Path:
    return work.partial / _LAYERS / f"{index:05d}.safetensors"
