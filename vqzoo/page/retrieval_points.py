"""What `vqzoo compare --task retrieval` measured of the artifacts on the page."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.errors import ArtifactError
from vqzoo.page.collect import Problem, Run
from vqzoo.report.record_file import read_json

RETRIEVAL_FILE = "retrieval.json"  # beside the artifacts of a comparison


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Point(_Read):
    """Of a `RetrievalPoint` what the page shows; see there."""

    folder: str
    sha256: str
    map: float
    change: float
    ci95: float
    asymmetric_map: float
    asymmetric_change: float
    asymmetric_ci95: float


class _Comparison(_Read):
    data: str
    queries: int
    dense_map: float
    points: tuple[_Point, ...]


def retrieval_figures(runs: Iterable[Run]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """For each run the figures that the comparison beside it holds, None where it has none.

    Figures of another weights file of the same name are left out. A file that is malformed is a
    problem, and the artifacts beside it are shown without its figures.
    """
    comparisons: dict[Path, _Comparison | None] = {}
    problems: list[Problem] = []
    figures = []
    for run in runs:
        folder = run.folder.resolve().parent
        if folder not in comparisons:
            try:
                comparisons[folder] = read_json(folder / RETRIEVAL_FILE, _Comparison)
            except ArtifactError as error:
                comparisons[folder] = None
                problems.append(Problem(f"{folder.name}/{RETRIEVAL_FILE}", str(error)))
        figures.append(_figures(comparisons[folder], run.folder.resolve()))
    return figures, problems


def _figures(comparison: _Comparison | None, folder: Path) -> dict[str, Any]:
    point = None
    if comparison is not None:
        named = [point for point in comparison.points if point.folder == folder.name]
        weights = folder / WEIGHTS_FILE
        if named and weights.is_file() and sha256_file(weights) == named[0].sha256:
            point = named[0]
    if comparison is None or point is None:
        names = ("map", "dense_map", "map_lost", "map_ci95", "across_map", "across_lost")
        return dict.fromkeys((*names, "across_ci95", "map_on"))
    return {
        "map": point.map,
        "dense_map": comparison.dense_map,
        "map_lost": -point.change,
        "map_ci95": point.ci95,
        "across_map": point.asymmetric_map,
        "across_lost": -point.asymmetric_change,
        "across_ci95": point.asymmetric_ci95,
        "map_on": f"{comparison.queries:,} queries of {comparison.data}",
    }
