"""Reads and writes bench.json."""

from pathlib import Path

from vqzoo.artifact.files import write_text
from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import BENCH_FILE
from vqzoo.report.costs.record import BenchRecord
from vqzoo.report.record_file import read_json


def write_costs(record: BenchRecord, folder: Path) -> None:
    """Write bench.json into an artifact's folder."""
    write_text(folder / BENCH_FILE, record.to_json() + "\n")


def read_costs(artifact: Artifact) -> BenchRecord | None:
    """The benchmark of an artifact.

    None if its folder has no bench.json, or one of another artifact.

    Raises:
        ArtifactError: bench.json is malformed; the message names the field.
    """
    record = read_json(artifact.folder / BENCH_FILE, BenchRecord)
    if record is None:
        return None
    return record if record.artifact_bytes == artifact.block.bytes else None
