"""`vqzoo.compress`."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.artifact.schema import Layout, Rest
from vqzoo.budget.choose import choose
from vqzoo.budget.methods import check_sizes_are_open, default_methods
from vqzoo.budget.settings import HELD_OUT_IMAGES
from vqzoo.budget.task import Limit, Task
from vqzoo.calibration.repair import Repaired, repair_with
from vqzoo.calibration.statistics import (
    check_sequential,
    layer_statistics,
    sequential_statistics,
)
from vqzoo.compression.check import check_weights
from vqzoo.compression.coded_layer import with_dense_weights
from vqzoo.compression.folding import with_plain_weights
from vqzoo.compression.layer import CompressedLayer, compress_layer
from vqzoo.compression.model import compress_model
from vqzoo.compression.norms.folding import FoldedNorms, merge_norms
from vqzoo.compression.norms.folding import fold_norms as fold_batch_norms
from vqzoo.compression.plugin_calls import Statistics, decode_new
from vqzoo.compression.selection import plan_layers
from vqzoo.compression.view import compressible_layers, copy_with_weights
from vqzoo.compression.work import LayerInput
from vqzoo.data.batches import Batch, Data
from vqzoo.data.calibration_data import (
    CALIBRATION_IMAGES,
    collect_calibration_data,
    open_calibration_data,
    open_held_out,
)
from vqzoo.data.sources import ReadOptions
from vqzoo.errors import CoverageWarning, UsageError
from vqzoo.evaluation.answers import in_precision_of
from vqzoo.module_checks import check_eager
from vqzoo.network.choices import Choice, Rule, method_choices
from vqzoo.network.compressed_model import CompressedModel
from vqzoo.network.layer_workers import layer_workers
from vqzoo.network.under_budget import form_when_saved, limit_of
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher, Watcher
from vqzoo.report.budget import BudgetRecord
from vqzoo.wrappers import without_wrappers


def compress(
    model: nn.Module,
    method: str | Mapping[str, Rule] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    ratio: float | None = None,
    size: str | int | None = None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    lambda_: float | None = None,
    held_out_images: int = HELD_OUT_IMAGES,
    transforms: Sequence[Choice] = (),
    fold_norms: bool = False,
    calibrate: str | Iterable[Any] | None = None,
    sequential: bool = False,
    repair: str | Iterable[Any] | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    skip_unreadable: bool = False,
    keep_going: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    executor: str | None = None,
    progress: Watcher | None = None,
    plugins: Sequence[str | Path] = (),
    **options: Any,
) -> CompressedModel:
    """Compress a network's weights.

    The same arguments make the same codes as `vqzoo run`.

    Args:
        model: any module; it can be saved if timm created it. It is not changed. Of a network in
            `DataParallel`, `torch.compile` and the like, the network inside is compressed; of
            one that was compressed before, its decoded weights.
            Pruning masks, weight norms, spectral norms and parametrizations are folded into plain
            weights on a copy.
        method: the name of a method, or a mapping from layer selectors to a method, to (method,
            options), or to a list of transforms that ends in a method:
            `{"features.*": ("km", {"k": 256}), "classifier.*": "pq"}`. The last selector that
            matches a layer wins. The option "ratio" is a ratio for these layers alone. Under a
            budget it may be left out, and a name may be several, joined by commas: each layer gets
            the method that suits it best.
        layers: selectors of the layers that `method` compresses, if it is a name: "dense" (the
            default), "conv", "all" (the default under a budget), "largest:3", names, patterns; a
            leading "!" excludes.
        ratio: let the method choose its options per layer for this ratio, codebooks counted; 16
            where neither a ratio nor options nor a budget are given.
        size: the budget: the file that `save` writes by default, or `save_weights`, is at most this
            large, header included: "2.3MB", "200kB", or bytes.
        max_kl: or: the smallest file whose answers diverge from the dense network's by at most so
            many nats, on images held out of calibration.
        max_drop: or: the smallest file that loses at most so many points of top-1, on labelled
            images held out of calibration.
        lambda_: or: the price of a bit itself, in squared logits.
        held_out_images: how many images `max_kl` and `max_drop` hold out at most; `calibrate` is
            then a data specification.
        transforms: transforms to run before the method, in order: names, or (name, options).
        fold_norms: fold batch norms into the layers that they follow directly, before anything is
            compressed. The modules stay; saved in the layout "compact", they take a shift for each
            channel instead of four numbers. Norms that follow no layer keep a scale, too.
        calibrate: weight errors by what they do to the network's answers on these images: a data
            specification as `vqzoo run --calibrate` takes it, or preprocessed batches such as a
            `torch.utils.data.DataLoader` gives (of images, or pairs of images and labels).
        sequential: calibrate each layer on what it sees behind the layers compressed before it,
            instead of what it sees in the dense network; under a budget, at the price found.
        repair: correct biases and batch norm statistics afterwards on these images, given in the
            same way; without labels.
        calibration_images: how many images either uses at most. Those of given batches are the
            first ones, read once and held in memory.
        skip_unreadable: leave out images of a data specification that cannot be read, with a
            warning, instead of failing.
        keep_going: leave a layer dense if its plugin fails, and continue with the others.
        seed: the same seed gives the same codes.
        device: where to compute.
        executor: compress layers side by side in other processes, as `vqzoo run --executor` does:
            "local:4". The codes are the same. Layers in flight are files in a temporary folder
            (`TMPDIR`), which workers on other machines must see. A script calls it below
            `if __name__ == "__main__":`, as with `multiprocessing`.
        progress: callbacks; with neither `calibrate` nor `repair` nor a budget, those of
            `vqzoo.progress.Progress` are enough.
        plugins: plugin files to use besides the installed plugins.
        **options: the method's options.

    Returns:
        The compressed network; `vqzoo.save_weights` saves one that timm cannot create. A
        `CoverageWarning` says so if less than half of its weights are compressed.

    Raises:
        UsageError: `model` is not a network with weights or cannot be copied, a name or an option
            is unknown, a selector matches nothing, there are no batch norms to fold, the data is
            invalid, layers cannot be compressed side by side, or nothing keeps the budget.
        VqzooError: weights are not finite, data cannot be read, or a worker died.
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and `keep_going` is off.

    Example:
        >>> small = vqzoo.compress(model, "pq", layers="dense", k=256, d=4)
        >>> small = vqzoo.compress(model, size="2.3MB", calibrate="imagefolder:train")
    """
    limit = limit_of(size, max_kl, max_drop, lambda_)
    model = without_wrappers(model)
    with plugin_files(plugins):
        available = installed_plugins()
    if isinstance(model, CompressedModel):
        model = model.module
    check_eager(model)
    model, folded = with_plain_weights(with_dense_weights(model))
    norms: FoldedNorms | None = None
    if fold_norms:
        norms = fold_batch_norms(model)
        model = norms.module
    compressible, passed_over = compressible_layers(model)
    if limit is not None and method is None:
        method = ",".join(default_methods(available, limit.option))
    choice, rules = method_choices(method, ratio, transforms, options, limit)
    if layers is None:
        layers = "dense" if limit is None else "all"
    selection = [layers] if isinstance(layers, str) else list(layers)
    plans, skipped = plan_layers(
        compressible, selection, choice, rules, available, passed_over=passed_over
    )
    if sequential:
        if calibrate is None:
            raise UsageError(
                "sequential=True is about what layers see on calibration images: give calibrate="
            )
        check_sequential(plans, available, "sequential=True")
    check_weights(model, plans)
    held_out: Data | None = None
    if limit is None or limit.size is not None or limit.price is not None:
        calibration = _open_images(calibrate, model, calibration_images, seed, skip_unreadable)
    else:
        calibration, held_out = _open_held_out(
            calibrate, model, calibration_images, held_out_images, seed, skip_unreadable, limit
        )
    if repair is calibrate or (isinstance(repair, str) and repair == calibrate):
        repair_data = calibration  # the images are decoded, or read, once
    else:
        repair_data = _open_images(repair, model, calibration_images, seed, skip_unreadable)

    watcher, where = progress or SilentWatcher(), torch.device(device)
    for plan in plans:
        if plan.layer.name in folded:
            watcher.note(plan.layer.name, folded[plan.layer.name])
    matrices: dict[str, Tensor] = {}
    finished: dict[int, CompressedLayer] = {}
    budget: BudgetRecord | None = None
    rest: Rest = "float32"
    layout: Layout = "plain" if norms is None else "compact"

    compress_one = partial(compress_layer, plugins=available, seed=seed, device=where)

    def compress_here(layer: LayerInput) -> tuple[CompressedLayer, Tensor]:
        compressed, decoded = compress_one(layer)
        matrices[layer.plan.layer.name] = decoded
        return compressed, decoded

    def take(_index: int, _before: int, layer: CompressedLayer) -> None:
        name = layer.layer.name
        if name not in matrices:  # a search keeps codes alone, and other processes send no more
            matrices[name] = decode_new(layer.compressed, available, name)

    one_by_one = sequential and limit is None
    with layer_workers(executor, available, where, one_by_one=one_by_one) as workers:
        if limit is not None:
            check_sizes_are_open(plans, available, limit.option)
            form = form_when_saved(model)
            rest, layout = form.rest, form.layout
            task = Task(
                model=model,
                plans=plans,
                dense_layers=len(passed_over) + len(skipped),
                plugins=available,
                seed=seed,
                device=where,
                packing=None,
                rest=rest,
                features=list(form.features),
                layout=layout,
                norms=None if norms is None else norms.layers,
                calibration=calibration,
                sequential=sequential,
                repair=repair_data,
                held_out=held_out,
                finetune=None,
                keep_going=keep_going,
                keep_going_option="keep_going=True",
                workers=workers,
            )
            chosen = choose(task, limit, watcher)
            plans, budget = chosen.plans(plans), chosen.record
            for index, candidate in chosen.trial.layers.items():
                finished[index] = candidate.compressed
                take(index, 0, candidate.compressed)
        statistics: Mapping[str, Statistics] | None = None
        if calibration is not None:
            request = (model, plans, available, calibration)
            if sequential:
                decoders = {name: partial(matrices.__getitem__, name) for name in matrices}
                statistics = sequential_statistics(
                    *request, seed=seed, device=where, watcher=watcher, finished=decoders
                )
            else:
                statistics = layer_statistics(
                    *request,
                    seed=seed,
                    device=where,
                    watcher=watcher,
                    finished=list(matrices),
                    second_order_of_all=limit is not None,
                )

        compressed, failed = compress_model(
            model,
            plans,
            available,
            compress_here if workers is None else compress_one,
            progress=watcher,
            statistics=statistics,
            finished=finished,
            on_kept=take,
            keep_going=keep_going,
            workers=workers,
        )
    module = copy_with_weights(model, matrices).eval().requires_grad_(False)
    repaired: Repaired | None = None
    if repair_data is not None:
        names = [layer.layer.name for layer in compressed]
        repaired = repair_with(repair_data, model, module, names, device=where, watcher=watcher)
        module = repaired.module
    if norms is not None:
        module = merge_norms(module)
    small = CompressedModel(
        module,
        compressed,
        passed_over | skipped | failed,
        plugins,
        repaired,
        rest=rest,
        layout=layout,
        budget=budget,
        norms=None if norms is None else norms.layers,
    )
    if small.coverage.low:
        warnings.warn(f"{small.coverage}", CoverageWarning, stacklevel=2)
    return small


def _open_held_out(
    source: str | Iterable[Any] | None,
    model: nn.Module,
    images: int,
    held_out: int,
    seed: int,
    skip_unreadable: bool,
    limit: Limit,
) -> tuple[Data, Data]:
    """Calibration images, and others that judge the network.

    Raises:
        UsageError: there is no specification of data to hold some out of, it is invalid, or labels
            are missing.
    """
    if not isinstance(source, str):
        raise UsageError(
            f"{limit.text} is measured on images held out of calibration: give calibrate= a data "
            'specification, as in calibrate="imagefolder:PATH"'
        )
    if images < 1 or held_out < 1:
        raise UsageError("calibration_images= and held_out_images=: choose at least 1")
    read = ReadOptions(skip_unreadable=skip_unreadable)
    calibration, judging = open_held_out(
        source, model, images=images, held_out=held_out, seed=seed, read=read
    )
    if limit.max_drop is not None and not judging.labelled:
        raise UsageError(
            f"{judging.name} has no labels for max_drop=: {judging.unlabelled}; give max_kl=, "
            "which needs none"
        )
    return calibration, judging


def _open_images(
    source: str | Iterable[Any] | None,
    model: nn.Module,
    images: int,
    seed: int,
    skip_unreadable: bool,
) -> Data | None:
    """Calibration images from a specification or from given batches.

    Raises:
        UsageError: fewer than 1 image, or the specification is invalid.
    """
    if source is None:
        return None
    if images < 1:
        raise UsageError(f"calibration_images={images}: choose at least 1")
    data = (
        open_calibration_data(
            source, model, images=images, seed=seed, skip_unreadable=skip_unreadable
        )
        if isinstance(source, str)
        else collect_calibration_data(source, images)
    )

    def batches() -> Iterator[Batch]:
        for batch in data.batches():
            yield batch._replace(images=in_precision_of(model, batch.images))

    return replace(data, batches=batches)
