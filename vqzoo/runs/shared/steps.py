"""Compute what runs share before they start."""

from collections.abc import Iterator
from contextlib import contextmanager

from vqzoo.artifact.files import cache_folder
from vqzoo.calibration.kept import statistics_in
from vqzoo.data.kept_pixels import pixels_in
from vqzoo.plugin.files import plugin_files
from vqzoo.progress import Watcher
from vqzoo.runs.compress_layers import gather_statistics
from vqzoo.runs.prepare import open_dense, open_measured_data, parse_device, prepare
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.shared.baseline import baseline_of
from vqzoo.storage.shared import SharedFolder


@contextmanager
def shared_by_runs(shared: SharedFolder | None) -> Iterator[None]:
    """Keep statistics where other runs find them, and decoded images on this machine; None keeps
    nothing."""
    pixels = None if shared is None else cache_folder() / "pixels"
    with statistics_in(shared), pixels_in(pixels):
        yield


def share_evaluation(
    recipe: Recipe, watcher: Watcher, shared: SharedFolder, *, fall_back: bool = True
) -> None:
    """Evaluate the dense model of a recipe, unless the folder has its evaluation.

    Raises:
        VqzooError: the model, its weights or the images are not available.
    """
    with plugin_files(recipe.plugins), shared_by_runs(shared):
        dense, _ = open_dense(recipe, watcher, fall_back=fall_back)
        data = open_measured_data(recipe, dense, watcher)
        baseline_of(recipe, dense, data, parse_device(recipe.device), watcher, shared)


def share_statistics(
    recipe: Recipe, watcher: Watcher, shared: SharedFolder, *, fall_back: bool = True
) -> None:
    """Gather the second-order statistics of a recipe's layers, or samples of their inputs, unless
    the folder has them.

    Raises:
        VqzooError: the model, its weights or the images are not available.
    """
    with plugin_files(recipe.plugins), shared_by_runs(shared):
        prepared = prepare(recipe, watcher, None, fall_back=fall_back)
        gather_statistics(prepared, {}, watcher)
