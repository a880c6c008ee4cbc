"""The layers of a run, one by one, kept as they are finished."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.calibration.layer_inputs import layer_inputs
from vqzoo.compression.compress import compress_layer
from vqzoo.compression.view import weight_key
from vqzoo.errors import NothingCompressed, PluginError
from vqzoo.plugin.method import SkipLayer
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Watcher
from vqzoo.report.record import layer_row
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.workspace import Workspace, save_layer, saved_layer


@dataclass(frozen=True)
class CompressedNetwork:
    """What a run is to write, and to tell of it.

    Attributes:
        module: everything that `layers` do not replace.
        layers: the compressed weights.
        rows: their rows of the record.
        skipped: layer -> why it stayed dense.
        stages: where the run fine-tuned, one entry a stage, the dense network first.
        finetuning: how the last stage was fine-tuned.
        finetuning_seconds: that fine-tuning took.
        repair: what was repaired, and on which images.
    """

    module: nn.Module
    layers: list[EncodedLayer]
    rows: list[dict[str, Any]]
    skipped: dict[str, str]
    stages: list[dict[str, Any]] = field(default_factory=list)
    finetuning: dict[str, Any] | None = None
    finetuning_seconds: float = 0.0
    repair: dict[str, Any] | None = None


def compress_layers(
    ready: Prepared, work: Workspace, watcher: Watcher, keep_going: bool
) -> CompressedNetwork:
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
    finished = [saved_layer(work, index) for index in range(total)]
    waiting = [p.layer for p, saved in zip(ready.plans, finished, strict=True) if saved is None]
    inputs = _calibrate(ready, waiting, watcher)
    if ready.calibration is not None:
        _tell_of_uncalibrated(ready, watcher)
    for index, (plan, saved) in enumerate(zip(ready.plans, finished, strict=True)):
        name = plan.layer.name
        watcher.layer_started(name, index, total)
        if saved is None:
            try:
                encoded, row = _compress_one(ready, index, watcher, inputs.get(name))
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
    return CompressedNetwork(ready.opened.module, layers, rows, skipped)


def _compress_one(
    ready: Prepared, index: int, watcher: Watcher, inputs: Tensor | None
) -> tuple[EncodedLayer, dict[str, Any]]:
    plan, recipe = ready.plans[index], ready.recipe
    model = ready.opened.module
    if ready.calibration is not None and inputs is None:
        watcher.note(plan.layer.name, "calibration does not reach it: its inputs were not seen")
    compressed = compress_layer(
        model,
        plan,
        ready.plugins,
        seed=recipe.seed,
        device=ready.device,
        progress=watcher,
        inputs=inputs,
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


def _calibrate(
    ready: Prepared, waiting: Sequence[LayerInfo], watcher: Watcher
) -> dict[str, Tensor]:
    """Calibration inputs of the layers still to be compressed, where they are asked for."""
    data = ready.calibration
    if data is None or not waiting:
        return {}
    with watcher.images(f"calibrating on {data.name}") as steps:
        return layer_inputs(
            ready.opened.module,
            waiting,
            data,
            data.images or ready.recipe.calibration_images,
            seed=ready.recipe.seed,
            device=ready.device,
            progress=steps,
        )


def _tell_of_uncalibrated(ready: Prepared, watcher: Watcher) -> None:
    """Note once a method, at its first layer, that it does not declare a use of calibration."""
    firsts = {plan.choice.method: plan.layer.name for plan in reversed(ready.plans)}
    for method, layer in reversed(firsts.items()):
        if not ready.plugins.quantizers.get(method).item.calibrated:
            watcher.note(
                layer, f"calibration may change nothing: {method} does not declare that it uses it"
            )
