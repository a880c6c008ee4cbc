"""The Pareto front of results: bytes against accuracy."""

from collections.abc import Sequence

from vqzoo.sweeps.results import Row


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """For each model and its images, the artifacts than which none is smaller and as accurate.

    Accuracy is top-1, or the agreement with the dense model where images have no labels. Of equal
    artifacts the first one stays. Rows without a measurement are left out.

    Returns:
        Rows of one model together, smallest file first.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.file_bytes is not None and accuracy(row) is not None:
            key = (row.model, row.data, row.images, row.top1 is None)
            groups.setdefault(key, []).append(row)
    return [row for group in groups.values() for row in _front(group)]


def accuracy(row: Row) -> float | None:
    """Top-1 in percent, or the agreement with the dense model where it was not measured."""
    return row.agreement if row.top1 is None else row.top1


def _front(rows: Sequence[Row]) -> list[Row]:
    front: list[Row] = []
    best = float("-inf")
    for row in sorted(rows, key=lambda row: (row.file_bytes or 0, -(accuracy(row) or 0.0))):
        value = accuracy(row)
        if value is not None and value > best:
            front.append(row)
            best = value
    return front
