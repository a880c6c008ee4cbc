"""One run: compress, write, read back, measure, record."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.files import write_text
from vqzoo.artifact.schema import DENSE_FILE, REPORT_FILE
from vqzoo.artifact.writer import dense_bytes, untouched_tensors, write_artifact, write_tensors
from vqzoo.compression.compress import compress_layer
from vqzoo.compression.view import weight_key
from vqzoo.errors import NothingCompressed, PluginError
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.method import SkipLayer
from vqzoo.zoo.card import write_card
from vqzoo.zoo.data import Data
from vqzoo.zoo.evaluate import Evaluation, agreement, evaluate
from vqzoo.zoo.load import load
from vqzoo.zoo.prepare import Prepared, prepare
from vqzoo.zoo.recipe import Recipe, canonical_command
from vqzoo.zoo.record import accuracy_block, agreement_block, layer_row, ratios, versions
from vqzoo.zoo.watcher import Watcher
from vqzoo.zoo.workspace import (
    Workspace,
    abandon_if_empty,
    check_target,
    finish,
    finished_record,
    open_workspace,
    save_layer,
    saved_layer,
)


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves: the artifact's folder and its record."""

    folder: Path
    record: dict[str, Any]


def run(
    recipe: Recipe,
    watcher: Watcher,
    *,
    out: Path | None = None,
    force: bool = False,
    reuse: bool = False,
    fall_back: bool = True,
    keep_going: bool = False,
) -> FinishedRun:
    """Compress a model into an artifact, and measure what is on disk.

    A run that breaks off leaves `<out>.partial`; the same run takes it up again.

    Args:
        recipe: what to do.
        watcher: told how it goes.
        out: the artifact's folder; by default named after model, method and recipe.
        force: replace a finished folder.
        reuse: take a finished folder as it is where the very same was asked for.
        fall_back: let an embedded relative stand in for a bare name whose weights cannot be had.
        keep_going: leave a layer dense whose plugin fails, and go on with the others.

    Raises:
        UsageError: something asked for does not exist or makes no sense; nothing was written.
        VqzooError: the run failed.
    """
    with plugin_files(recipe.plugins):
        return _run(recipe, watcher, out, force, reuse, fall_back, keep_going)


def _run(
    recipe: Recipe,
    watcher: Watcher,
    out: Path | None,
    force: bool,
    reuse: bool,
    fall_back: bool,
    keep_going: bool,
) -> FinishedRun:
    started = time.perf_counter()
    ready = prepare(recipe, watcher, out, fall_back=fall_back)
    recipe = ready.recipe
    if reuse and (found := finished_record(ready.target, ready.digest)) is not None:
        return FinishedRun(ready.target, found)
    check_target(ready.target, ready.digest, force=force)
    model = ready.opened.module

    clock = time.perf_counter()
    before = _accuracy(model, ready, watcher, "dense")
    evaluating = time.perf_counter() - clock

    clock = time.perf_counter()
    work = open_workspace(ready.target, ready.digest)
    try:
        layers, rows, skipped = _compress(ready, work, watcher, keep_going)
    except BaseException:
        abandon_if_empty(work)
        raise
    compressing = time.perf_counter() - clock

    written = write_artifact(
        work.partial,
        model,
        layers,
        ready.config,
        method=recipe.label,
        weights=ready.opened.weights,
    )
    del layers
    with watcher.phase("reading the artifact back"):
        reread = load(work.partial)
    if recipe.dense:
        tensors, _ = untouched_tensors(reread, set())
        write_tensors(work.partial / DENSE_FILE, tensors, {"format": "pt"})

    clock = time.perf_counter()
    measured = _measure(before, reread, ready, watcher)
    evaluating += time.perf_counter() - clock

    dense = dense_bytes(model)
    record: dict[str, Any] = {
        "model": ready.opened.name,
        "weights": ready.opened.weights,
        "weights_sha256": ready.opened.weights_sha256,
        "method": recipe.label,
        "options": {**recipe.options, **({"ratio": recipe.ratio} if recipe.ratio else {})},
        "seed": recipe.seed,
        "asked_sha256": ready.digest,
        "bytes": {"dense": dense, "file": written.file_bytes},
        "ratio": ratios(rows, dense, written.file_bytes),
        **measured,
        "layers": rows,
        "skipped": skipped,
        "seconds": {
            "compress": compressing,
            "evaluate": evaluating,
            "total": time.perf_counter() - started,
        },
        "command": canonical_command(recipe, ready.opened.name),
        "versions": versions(ready.plugins),
    }
    write_text(work.partial / REPORT_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_card(work.partial, ready.plugins)
    finish(work)
    ready.plugins.notify("vqzoo_run_finished", record=record, folder=str(ready.target))
    return FinishedRun(ready.target, record)


def _compress(
    ready: Prepared, work: Workspace, watcher: Watcher, keep_going: bool
) -> tuple[list[EncodedLayer], list[dict[str, Any]], dict[str, str]]:
    """Compress every planned layer, taking up those that an earlier run finished.

    Raises:
        NothingCompressed: not one layer could be.
        PluginError: a plugin failed, and the run is not to keep going.
    """
    if work.resumed:
        watcher.say(f"Taking up {work.partial} where it was left.")
    layers: list[EncodedLayer] = []
    rows: list[dict[str, Any]] = []
    skipped = dict(ready.skipped)
    total = len(ready.plans)
    for index, plan in enumerate(ready.plans):
        name = plan.layer.name
        watcher.layer_started(name, index, total)
        saved = saved_layer(work, index)
        if saved is None:
            try:
                encoded, row = _compress_one(ready, index, watcher)
            except SkipLayer as reason:
                skipped[name] = str(reason)
                watcher.note(name, f"stays dense: {reason}")
                continue
            except PluginError as error:
                if not keep_going:
                    raise PluginError(f"{error} (--keep-going leaves it dense)") from error
                skipped[name] = f"failed: {error}"
                watcher.note(name, f"stays dense: {error}")
                continue
            save_layer(work, index, encoded, row)
        else:
            encoded, row = saved
        layers.append(encoded)
        rows.append(row)
        ready.plugins.notify("vqzoo_layer_compressed", layer=row, done=index + 1, total=total)
    if not layers:
        first = ready.plans[0].layer.name
        raise NothingCompressed(f"no layer could be compressed; {first}: {skipped[first]}")
    return layers, rows, skipped


def _compress_one(
    ready: Prepared, index: int, watcher: Watcher
) -> tuple[EncodedLayer, dict[str, Any]]:
    plan, recipe = ready.plans[index], ready.recipe
    model = ready.opened.module
    compressed = compress_layer(
        model, plan, ready.plugins, seed=recipe.seed, device=ready.device, progress=watcher
    )
    key = weight_key(plan.layer.name)
    encoded = encode_layer(
        key,
        plan.layer.shape,
        model.get_parameter(key).dtype,
        compressed.compressed,
        compressed.options,
        recipe.packing,
        ready.plugins,
        [(step.name, step.options) for step in compressed.transforms],
    )
    return encoded, layer_row(compressed, encoded)


def _accuracy(model: nn.Module, ready: Prepared, watcher: Watcher, which: str) -> Evaluation | None:
    """Accuracy on the run's data, None where there is none or it has no labels."""
    data: Data | None = ready.data
    if data is None or not data.labelled:
        return None
    with watcher.images(f"evaluating the {which} model") as steps:
        return evaluate(model, data, device=ready.device, progress=steps)


def _measure(
    before: Evaluation | None, reread: nn.Module, ready: Prepared, watcher: Watcher
) -> dict[str, Any]:
    """Accuracy before and after, or agreement where images have no labels, or neither."""
    after = _accuracy(reread, ready, watcher, "compressed")
    if before is not None and after is not None:
        return {"accuracy": accuracy_block(before, after), "agreement": None}
    if ready.data is None:
        return {"accuracy": None, "agreement": None}
    with watcher.images("comparing with the dense model") as steps:
        agreed = agreement(
            ready.opened.module, reread, ready.data, device=ready.device, progress=steps
        )
    return {"accuracy": None, "agreement": agreement_block(agreed)}
