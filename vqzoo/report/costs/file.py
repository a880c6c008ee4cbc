"""Reads and writes bench.json."""

from pathlib import Path

from pydantic import ValidationError

from vqzoo.artifact.files import write_text
from vqzoo.artifact.header import strict_json
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import BENCH_FILE
from vqzoo.errors import ArtifactError, invalid_field
from vqzoo.report.costs.record import BenchRecord


def write_costs(record: BenchRecord, folder: Path) -> None:
    """Write bench.json into an artifact's folder."""
    write_text(folder / BENCH_FILE, record.to_json() + "\n")


def read_costs(artifact: Artifact) -> BenchRecord | None:
    """The benchmark of an artifact.

    None if its folder has no bench.json, or one of another artifact.

    Raises:
        ArtifactError: bench.json is malformed; the message names the field.
    """
    path = artifact.folder / BENCH_FILE
    if not path.is_file():
        return None
    try:
        record = BenchRecord.model_validate(strict_json(path.read_bytes(), str(path)))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        field = invalid_field(error)
        where = f" at {field.name!r:.200}" if field.name else ""
        raise ArtifactError(f"{path} is malformed{where}: {field.reason}") from None
    return record if record.artifact_bytes == artifact.block.bytes else None
