"""Finds the artifacts below some folders and reads the records of their runs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqzoo.artifact.schema import CONFIG_FILE, REPORT_FILE, WEIGHTS_FILE
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.report.record import Record
from vqzoo.report.record_file import load_record

_UNFINISHED = (".partial", ".old", ".tmp")  # endings of folders that a run is still writing


@dataclass(frozen=True)
class Run:
    """An artifact and the record of the run that made it.

    Attributes:
        name: its folder as the page shows it, without local folders above the given ones.
        folder: the artifact's folder.
        record: the record in its report.json.
    """

    name: str
    folder: Path
    record: Record


@dataclass(frozen=True)
class Problem:
    """An artifact that the page cannot show.

    Attributes:
        name: as of a `Run`.
        reason: one line that says what is wrong.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """What lies below some folders, in the order of the folders, then of the names."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


def collect(folders: Sequence[Path]) -> Collection:
    """Read the record of every artifact in `folders` and in the folders below them.

    An artifact without a usable record is a problem of the collection, not an error, as long as
    another one has a record.

    Raises:
        UsageError: a folder does not exist, or has no artifact.
        ArtifactError: no artifact has a usable record; the message gives the first reason.
    """
    runs: list[Run] = []
    problems: list[Problem] = []
    seen: set[Path] = set()
    for given in folders:
        artifacts = list(_artifacts(given))
        if not artifacts:
            raise UsageError(
                f"{given} has no artifact, nor have the folders in it: give folders that "
                "`vqzoo run`, `vqzoo compare` or `vqzoo zoo build` wrote"
            )
        for folder in artifacts:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            name = _name(folder, given, alone=len(folders) == 1)
            try:
                runs.append(Run(name, folder, _record(folder, name)))
            except VqzooError as error:
                problems.append(Problem(name, str(error)))
    if not runs:
        more = f" ({len(problems)} artifacts like this)" if len(problems) > 1 else ""
        raise ArtifactError(problems[0].reason + more)
    return Collection(tuple(runs), tuple(problems))


def _artifacts(given: Path) -> Iterator[Path]:
    """The artifacts' folders at and below a folder, by name; nothing inside an artifact is one.

    Raises:
        UsageError: the folder does not exist.
    """
    if not given.is_dir():
        raise UsageError(f"{given} is not a folder")
    for path, folders, files in os.walk(given):
        if REPORT_FILE in files or {CONFIG_FILE, WEIGHTS_FILE} <= set(files):
            folders.clear()
            yield Path(path)
        folders[:] = sorted(
            name for name in folders if name[:1] != "." and not name.endswith(_UNFINISHED)
        )


def _record(folder: Path, name: str) -> Record:
    """The record of an artifact.

    Raises:
        ArtifactError: there is none, it is malformed, or it describes another weights file.
    """
    record = load_record(folder)
    if record is None:
        raise ArtifactError(
            f"{name} has no {REPORT_FILE}: `vqzoo run` and `vqzoo finetune` write one, "
            "imports and Python's save do not"
        )
    weights = folder / WEIGHTS_FILE
    if weights.is_file() and weights.stat().st_size != record.bytes.file:
        raise ArtifactError(
            f"{name}: {REPORT_FILE} describes a weights file of {record.bytes.file:,} bytes, but "
            f"{WEIGHTS_FILE} has {weights.stat().st_size:,}"
        )
    return record


def _name(folder: Path, given: Path, *, alone: bool) -> str:
    relative = folder.relative_to(given).as_posix()
    top = given.resolve().name or "."
    if relative == ".":
        return top
    return relative if alone else f"{top}/{relative}"
