"""Reads and writes report.json."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vqzoo.artifact.files import write_text
from vqzoo.artifact.header import strict_json
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import REPORT_FILE
from vqzoo.compression.view import weight_key
from vqzoo.errors import ArtifactError, invalid_field
from vqzoo.report.record import Record

Kept = TypeVar("Kept", bound=BaseModel)


def write_record(record: Record, folder: Path) -> None:
    """Write report.json into an artifact's folder."""
    write_text(folder / REPORT_FILE, record.to_json() + "\n")


def load_record(folder: Path) -> Record | None:
    """The record in a folder's report.json; None if there is no such file.

    Raises:
        ArtifactError: the file cannot be read, is not JSON, or lacks what a record must hold; the
            message names the field.
    """
    return read_json(folder / REPORT_FILE, Record)


def read_json(path: Path, kind: type[Kept]) -> Kept | None:
    """What a JSON file beside an artifact holds; None if there is no such file.

    Raises:
        ArtifactError: see `load_record`.
    """
    if not path.is_file():
        return None
    try:
        return kind.model_validate(strict_json(path.read_bytes(), str(path)))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        field = invalid_field(error)
        where = f" at {field.name!r:.200}" if field.name else ""
        raise ArtifactError(f"{path} is malformed{where}: {field.reason}") from None


def read_record(artifact: Artifact) -> Record | None:
    """The record of the run that made an artifact.

    None if its folder has no report.json, or one that describes another artifact.

    Raises:
        ArtifactError: report.json is malformed.
    """
    record = load_record(artifact.folder)
    if record is None or record.bytes.file != artifact.block.bytes:
        return None
    keys = {weight_key(layer.name) for layer in record.layers}
    return record if keys == set(artifact.metadata.layers) else None
