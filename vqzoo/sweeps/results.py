"""The table of a sweep's results: one SQLite file, which the driver alone writes."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from vqzoo.errors import VqzooError, invalid_field

RESULTS_FILE = "results.sqlite"
_BETWEEN_COMMITS = 1.0  # seconds; what a crash loses is found again by the cells' folders


@dataclass(frozen=True)
class Row:
    """A cell's row.

    Attributes:
        cell: the hash of the request, which names the artifact's folder.
        state: done or failed.
        reason: why it failed.
        folder: of the artifact, relative to the sweep's.
        log: what the run said, relative to the sweep's folder.
        model: as the grid names it.
        method: the method, or the methods of which a size chooses; "mixed" where none is named.
        options: of the method, as NAME=VALUE joined by spaces.
        requested_ratio: of the compressed layers.
        requested_size: of the whole file.
        layers: the selectors, joined by commas.
        seed: of the run.
        data: what it was measured on.
        images: how many.
        file_bytes: size of the weights file.
        dense_bytes: size of the dense weights file.
        ratio_layers: how many times smaller the compressed layers are.
        ratio_file: how many times smaller the file is.
        top1: of the artifact, in percent.
        dense_top1: of the dense model, in percent.
        change: of top-1, in points.
        ci95: half-width of the 95% confidence interval of `change`.
        agreement: percentage of top-1 predictions that the artifact leaves unchanged.
        kl: mean KL(dense || compressed), in nats.
        seconds: wall-clock time of the cell.
        command: makes the artifact again.
    """

    cell: str
    state: Literal["done", "failed"]
    reason: str | None
    folder: str
    log: str
    model: str
    method: str
    options: str
    requested_ratio: float | None
    requested_size: str | None
    layers: str
    seed: int
    data: str | None = None
    images: int | None = None
    file_bytes: int | None = None
    dense_bytes: int | None = None
    ratio_layers: float | None = None
    ratio_file: float | None = None
    top1: float | None = None
    dense_top1: float | None = None
    change: float | None = None
    ci95: float | None = None
    agreement: float | None = None
    kl: float | None = None
    seconds: float | None = None
    command: str | None = None


COLUMNS = tuple(field.name for field in fields(Row))
_ROW = TypeAdapter(Row)


class Results:
    """The rows of a sweep."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._committed = time.monotonic()

    def write(self, row: Row) -> None:
        """Write a row in the place of an earlier one of the same cell."""
        marks = ", ".join("?" * len(COLUMNS))
        self._connection.execute(f"INSERT OR REPLACE INTO cells VALUES ({marks})", astuple(row))
        if time.monotonic() - self._committed > _BETWEEN_COMMITS:
            self._connection.commit()
            self._committed = time.monotonic()

    def states(self) -> dict[str, str]:
        """Cell -> its state."""
        return dict(self._connection.execute("SELECT cell, state FROM cells"))

    def seconds(self) -> dict[tuple[str, str], float]:
        """(model, method) -> mean wall-clock time of its finished cells."""
        rows = self._connection.execute(
            "SELECT model, method, avg(seconds) FROM cells WHERE state = 'done' "
            "GROUP BY model, method"
        )
        return {(model, method): seconds for model, method, seconds in rows}

    def rows(self, conditions: Sequence[tuple[str, str, Any]] = ()) -> list[Row]:
        """The rows for which all conditions hold, in the order of model, method and size.

        Args:
            conditions: column, operator of SQL, value.

        Raises:
            VqzooError: a row holds something else than a sweep writes.
        """
        clauses = [f"{column} {operator} ?" for column, operator, _ in conditions]
        where = f"WHERE {' AND '.join(clauses)} " if clauses else ""
        selected = self._connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM cells {where}"
            "ORDER BY model, layers, method, options, file_bytes IS NULL, file_bytes, seed, cell",
            [value for *_, value in conditions],
        )
        try:
            return [_ROW.validate_python(dict(zip(COLUMNS, row, strict=True))) for row in selected]
        except ValidationError as error:
            field = invalid_field(error)
            raise VqzooError(
                f"{self._name} is damaged at {field.name}: {field.reason}; delete it, and "
                "`vqzoo sweep` writes it anew"
            ) from None


@contextmanager
def open_results(
    folder: Path, *, create: bool = False, shown: str | None = None
) -> Iterator[Results]:
    """The results in a sweep's folder; what is written is kept, however the block ends.

    Args:
        folder: the folder.
        create: make an empty table if there is none.
        shown: what to call the folder in messages.

    Raises:
        VqzooError: the folder has no results, or a file that is none.
    """
    path, name = folder / RESULTS_FILE, f"{shown or folder}/{RESULTS_FILE}"
    if not create and not path.is_file():
        raise VqzooError(f"{folder} has no {RESULTS_FILE}: `vqzoo sweep` writes it")
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        _check(connection, name, create=create)
        yield Results(connection, name)
    except sqlite3.DatabaseError as error:
        raise VqzooError(f"{name} cannot be used: {error}") from None
    finally:
        connection.commit()
        connection.close()


def column_kind(name: str) -> type:
    """What a column holds where it holds something: str, int or float."""
    annotation = next(field.type for field in fields(Row) if field.name == name)
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in (int, float) if kind in kinds), str)


def _check(connection: sqlite3.Connection, name: str, *, create: bool) -> None:
    """Refuse a file with anything but the table: views, triggers and the like run when it is read.

    Raises:
        VqzooError: the file is another one.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    contents = connection.execute("SELECT type, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = contents.fetchmany(2)
    if not found and create:
        connection.execute(_schema())
    elif found != [("table", _schema())]:
        raise VqzooError(f"{name} is of another version of vqzoo: choose another --out")


def _schema() -> str:
    kinds = {float: "REAL", int: "INTEGER", str: "TEXT"}
    columns = [
        f"{name} {kinds[column_kind(name)]}" + (" PRIMARY KEY" if name == "cell" else "")
        for name in COLUMNS
    ]
    return f"CREATE TABLE cells ({', '.join(columns)})"
