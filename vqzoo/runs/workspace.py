"""The folder of a run: named `.partial` until it is complete, resumed after an interruption."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from vqzoo.artifact.encode import EncodedLayer, tensors_sha256
from vqzoo.artifact.files import canonical_json, write_text
from vqzoo.artifact.folder import REQUEST_FILE, partial_folder, put_in_place, request_digest
from vqzoo.artifact.header import read_header, strict_json
from vqzoo.artifact.writer import write_tensors
from vqzoo.errors import ArtifactError
from vqzoo.report.layer_record import LayerRecord
from vqzoo.report.record import Record
from vqzoo.report.record_file import load_record

_LAYERS = "layers"
_IN_FLIGHT = "in-flight"


@dataclass(frozen=True)
class Workspace:
    """The folder that a run works in.

    Attributes:
        target: the folder once the run is complete.
        partial: the folder until then.
        resumed: whether an earlier call of the same run left layers in it.
    """

    target: Path
    partial: Path
    resumed: bool


def default_folder(model: str, label: str, digest: str) -> Path:
    """`<model>-<method>-<short hash of the request>` in the working directory."""
    return Path(re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model}-{label}-{digest[:8]}"))


def finished_record(target: Path, digest: str) -> Record | None:
    """The record of a finished folder; None unless the same request made it and no plugin failed.

    A folder whose report.json is malformed counts as another's: `check_target` then says how to
    replace it.
    """
    try:
        record = load_record(target)
    except ArtifactError:
        return None
    if record is None or record.asked_sha256 != digest:
        return None
    plugin_failed = any(reason.startswith("failed:") for reason in record.skipped.values())
    return None if plugin_failed else record


def open_workspace(target: Path, digest: str) -> Workspace:
    """Make the `.partial` folder; resume the same request's, delete that of another request."""
    partial = partial_folder(target)
    if partial.exists() and request_digest(partial) != digest:
        shutil.rmtree(partial)
    shutil.rmtree(partial / _IN_FLIGHT, ignore_errors=True)  # of a call that was killed
    (partial / _LAYERS).mkdir(parents=True, exist_ok=True)
    resumed = any((partial / _LAYERS).rglob("*.safetensors"))
    write_text(partial / REQUEST_FILE, json.dumps({"sha256": digest}))
    return Workspace(target, partial, resumed)


def stage_workspace(work: Workspace, index: int | None) -> Workspace:
    """The workspace of a stage; None stands for the last stage, which uses the run's own folder."""
    if index is None:
        return replace(work, resumed=False)
    partial = work.partial / _LAYERS / f"stage-{index}"
    (partial / _LAYERS).mkdir(parents=True, exist_ok=True)
    return Workspace(work.target, partial, False)


def finetuning_checkpoint(work: Workspace, price: float | None = None) -> Path:
    """The file in which fine-tuning saves its state after each epoch; at a price that a search
    tries, one of its own."""
    name = "finetuning" if price is None else f"finetuning-{price!r}"
    return work.partial / _LAYERS / f"{name}.pt"


def recovery_folder(work: Workspace) -> Path:
    """The folder in which recovery saves its state after each step."""
    return work.partial / _LAYERS


def in_flight_folder(work: Workspace) -> Path:
    """The folder of weights and statistics that wait for workers or are with them."""
    return work.partial / _IN_FLIGHT


def budget_file(work: Workspace) -> Path:
    """The file in which a run keeps the price that it found for its budget."""
    return work.partial / _LAYERS / "budget.json"


def save_layer(work: Workspace, index: int, encoded: EncodedLayer, record: LayerRecord) -> None:
    """Save a finished layer, so that an interrupted run need not compress it again."""
    text = canonical_json({"key": encoded.key, "entry": encoded.entry, "row": record.to_dict()})
    write_tensors(_layer_path(work, index), encoded.tensors, {"layer": text})


def saved_layer(work: Workspace, index: int) -> tuple[EncodedLayer, LayerRecord] | None:
    """A layer that an earlier call finished; None if there is none, or only a damaged file."""
    path = _layer_path(work, index)
    if not path.exists():
        return None
    try:
        saved = strict_json(read_header(path).metadata["layer"], path.name)
        encoded = EncodedLayer(saved["key"], saved["entry"], load_file(path))
        record = LayerRecord.model_validate(saved["row"])
        intact = tensors_sha256(encoded.tensors) == encoded.entry["sha256"]
    except (ArtifactError, SafetensorError, KeyError, ValidationError):
        intact = False
    if not intact:
        path.unlink()  # interrupted while writing: the layer is compressed again
        return None
    return encoded, record


def finish_workspace(work: Workspace) -> None:
    """Delete what only resuming needs and rename the folder; an older one is deleted last."""
    shutil.rmtree(work.partial / _LAYERS)
    (work.partial / REQUEST_FILE).unlink()
    put_in_place(work.partial, work.target)


def abandon_if_empty(work: Workspace) -> None:
    """Delete the folder of a run that failed before it finished a layer or an epoch."""
    if not any(path.is_file() for path in (work.partial / _LAYERS).rglob("*")):
        shutil.rmtree(work.partial)


def _layer_path(work: Workspace, index: int) -> Path:
    return work.partial / _LAYERS / f"{index:05d}.safetensors"
