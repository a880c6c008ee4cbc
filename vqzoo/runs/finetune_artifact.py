"""`vqzoo finetune`: from an artifact to a better one of the same size."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from vqzoo.artifact.encode import FIXED_WIDTH, EncodedLayer
from vqzoo.artifact.files import canonical_json, sha256_text, write_text
from vqzoo.artifact.folder import check_target
from vqzoo.artifact.reader import Artifact, layer_parts, part_keys
from vqzoo.artifact.schema import REPORT_FILE, IndicesEntry, LayerEntry
from vqzoo.artifact.writer import dense_bytes, write_artifact
from vqzoo.compression.view import compressible_layers
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import UsageError
from vqzoo.finetuning.encoded import Lesson, finetuning_block, layer_name, learn
from vqzoo.finetuning.images import open_images
from vqzoo.finetuning.settings import Finetuning
from vqzoo.models.dense import EMBEDDED_DATA, OpenedModel, find_model
from vqzoo.network.build import build_model
from vqzoo.network.load import load, names_repository, verified_artifact
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import Watcher
from vqzoo.report.card import read_record, write_card
from vqzoo.report.record import ratios, versions
from vqzoo.runs.before_after import accuracy, before_and_after
from vqzoo.runs.command_line import public_data_name
from vqzoo.runs.prepare import parse_device
from vqzoo.runs.run import FinishedRun
from vqzoo.runs.workspace import abandon_if_empty, finetuning_checkpoint, finish, open_workspace


@dataclass(frozen=True)
class FinetuneRequest:
    """What is asked for.

    Attributes:
        source: the artifact's folder, or its repository on the Hub.
        settings: how to fine-tune, and on what.
        teacher: a timm model to learn from; the dense model that the record names unless given.
        checkpoint: weights of the dense model, where it has none that timm knows.
        data: what to measure on; the dense model's own unless given.
        images: measure on at most this many.
        seed: order and augmentation of the training images.
        device: where to train and to measure.
        plugins: plugin files that the artifact was made with.
    """

    source: str
    settings: Finetuning
    teacher: str | None = None
    checkpoint: Path | None = None
    data: str | None = None
    images: int | None = None
    seed: int = 0
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()


def finetune_artifact(
    asked: FinetuneRequest, watcher: Watcher, *, out: Path | None = None, force: bool = False
) -> FinishedRun:
    """Fine-tune an artifact into a new one, and measure what is on disk.

    A call that breaks off leaves `<out>.partial`; the same call takes it up again after the last
    whole epoch.

    Args:
        asked: what to do.
        watcher: told how it goes.
        out: the new folder; `<source>-finetuned` unless given.
        force: replace a finished folder.

    Raises:
        UsageError: something asked for does not exist or does not fit; nothing was written.
        ArtifactError: the artifact is damaged, or needs what is not installed.
        VqzooError: fine-tuning failed.
    """
    with plugin_files(asked.plugins):
        return _finetune(asked, watcher, out, force)


def _finetune(
    asked: FinetuneRequest, watcher: Watcher, out: Path | None, force: bool
) -> FinishedRun:
    started = time.perf_counter()
    device, plugins = parse_device(asked.device), installed_plugins()
    artifact, _ = verified_artifact(asked.source)
    record = read_record(artifact)
    with watcher.phase("reading the artifact"):
        module = build_model(artifact, plugins)
    dense = _find_dense(artifact, record, asked, watcher)
    teacher = dense if asked.teacher is None else find_model(asked.teacher, watcher)
    training = _open_training(asked, dense)
    spec = asked.data or EMBEDDED_DATA.get(dense.name)
    data = open_data(spec, dense.module, images=asked.images) if spec else None
    digest = _digest(asked, artifact, dense, teacher, plugins)
    target = out or _beside(asked.source)
    check_target(target, digest, force=force)

    clock = time.perf_counter()
    before = accuracy(dense.module, data, device, watcher, "dense")
    evaluating = time.perf_counter() - clock
    work = open_workspace(target, digest)
    lesson = Lesson(dense.module, teacher.module, training, asked.settings, asked.seed, device)
    layers, packing = _encoded_layers(artifact)
    rows = record["layers"] if record else _rows(module, layers)
    by_name = {layer_name(layer): layer for layer in layers}
    layers = [by_name[row["name"]] for row in rows]  # headers sort them, records do not
    clock = time.perf_counter()
    try:
        learned = learn(
            module, layers, rows, lesson, packing, plugins, watcher, finetuning_checkpoint(work)
        )
    except BaseException:
        abandon_if_empty(work)
        raise
    tuning = time.perf_counter() - clock

    block = artifact.block
    written = write_artifact(
        work.partial,
        learned.module,
        learned.layers,
        artifact.config,
        method=block.method,
        weights=block.weights,
    )
    with watcher.phase("reading the artifact back"):
        reread = load(work.partial)
    clock = time.perf_counter()
    measured = before_and_after(before, dense.module, reread, data, device, watcher)
    evaluating += time.perf_counter() - clock
    size = dense_bytes(dense.module)
    made: dict[str, Any] = {
        "model": dense.name,
        "weights": dense.weights,
        "weights_sha256": dense.weights_sha256,
        "method": block.method,
        "options": record["options"] if record else {},
        "seed": record["seed"] if record else asked.seed,
        "asked_sha256": digest,
        "bytes": {"dense": size, "file": written.file_bytes},
        "ratio": ratios(learned.rows, size, written.file_bytes),
        **measured,
        "layers": learned.rows,
        "skipped": record["skipped"] if record else {},
        "stages": [],
        "finetuning": {
            **finetuning_block(lesson, learned.tuned),
            "teacher": teacher.name,
            "seed": asked.seed,
        },
        "calibration": record.get("calibration") if record else None,
        "repair": record.get("repair") if record else None,
        "seconds": {
            "finetune": tuning,
            "evaluate": evaluating,
            "total": time.perf_counter() - started,
        },
        "command": _command(asked, record),
        "versions": versions(plugins),
    }
    write_text(work.partial / REPORT_FILE, json.dumps(made, indent=2, allow_nan=False) + "\n")
    write_card(work.partial, plugins)
    finish(work)
    plugins.notify("vqzoo_run_finished", record=made, folder=str(target))
    return FinishedRun(target, made)


def _beside(source: str) -> Path:
    """Where a fine-tuned artifact goes unless told: beside the folder, or into one named after the
    repository."""
    if names_repository(source):
        return Path(source.removeprefix("hf-hub:").partition("@")[0] + "-finetuned")
    folder = _folder(source)
    return folder.with_name(folder.name + "-finetuned")


def _folder(source: str) -> Path:
    """An artifact's folder, "." and ".." by their own names."""
    folder = Path(source.removeprefix("local-dir:"))
    return folder.resolve() if folder.name in ("", "..") else folder


def _find_dense(
    artifact: Artifact, record: Mapping[str, Any] | None, asked: FinetuneRequest, watcher: Watcher
) -> OpenedModel:
    """The network that was compressed, its weights those of the record.

    Raises:
        UsageError: it is not known, or has other weights.
    """
    cfg = artifact.config.get("pretrained_cfg") or {}
    name = f"{artifact.config['architecture']}.{cfg.get('tag') or ''}".rstrip(".")
    origin, seed = artifact.block.weights, 0
    if record is not None:
        name, origin, seed = record["model"], record["weights"], record["seed"]
    if record is None and origin == "pretrained" and not cfg.get("tag") and not asked.checkpoint:
        raise UsageError(f"which weights of {name} were compressed is not recorded: give "
                         "--checkpoint FILE")  # fmt: skip
    if origin not in ("pretrained", "random") and asked.checkpoint is None:
        raise UsageError(
            f"the weights that were compressed came from elsewhere ({origin}): give --checkpoint "
            "FILE"
        )
    opened = find_model(
        name,
        watcher,
        weights="random" if origin == "random" else "pretrained",
        checkpoint=asked.checkpoint,
        model_args=artifact.config.get("model_args"),
        seed=seed,
        fall_back=False,
    )
    if record is not None and opened.weights_sha256 != record["weights_sha256"]:
        raise UsageError(
            f"{opened.name} has other weights here than those that were compressed: give "
            "--checkpoint FILE with the right ones"
        )
    return opened


def _open_training(asked: FinetuneRequest, dense: OpenedModel) -> TrainingData:
    spec = asked.settings.data or EMBEDDED_DATA.get(dense.name)
    if spec is None:
        raise UsageError(f"{dense.name} has no training images here: give --data imagefolder:PATH")
    return open_images(spec, dense.module, asked.settings, asked.seed)


def _digest(
    asked: FinetuneRequest,
    artifact: Artifact,
    dense: OpenedModel,
    teacher: OpenedModel,
    plugins: Plugins,
) -> str:
    """A hash of what was asked, and of all that it came to."""
    fields = {
        "source": artifact.block.sha256,
        "settings": asked.settings.model_dump(mode="json"),
        "weights": [dense.weights_sha256, teacher.weights_sha256],
        "data": [asked.data, asked.images],
        "seed": asked.seed,
        "device": asked.device,
        "versions": {s.origin.distribution: s.origin.version for s in plugins.statuses},
    }
    return sha256_text(canonical_json(fields))


def _encoded_layers(artifact: Artifact) -> tuple[list[EncodedLayer], str]:
    """The compressed weights as they lie in the file, and how their codes are packed."""
    layers = []
    packings: list[str] = []
    with safe_open(artifact.weights_path, framework="pt") as file:
        for key, entry in artifact.metadata.layers.items():
            tensors = {name: file.get_tensor(name) for name in part_keys(key, entry)}
            layers.append(EncodedLayer(key, entry.model_dump(mode="json"), tensors))
            packings += [
                part.packing
                for _, part in layer_parts(key, entry.code)
                if isinstance(part, IndicesEntry)
            ]
    asked = (name for name in packings if name != FIXED_WIDTH)  # it also stands in
    return layers, next(asked, FIXED_WIDTH)


def _rows(module: nn.Module, layers: Sequence[EncodedLayer]) -> list[dict[str, Any]]:
    """What a record would say of an artifact's layers, as far as its header tells."""
    entries = {layer_name(layer): layer.entry for layer in layers}
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "shape": entries[layer.name]["shape"],
            "method": LayerEntry.model_validate(entries[layer.name]).methods[-1],
            "options": entries[layer.name]["options"],
            "transforms": entries[layer.name]["transforms"],
            "paper_bits": None,
            "notes": [],
        }
        for layer in compressible_layers(module)[0]
        if layer.name in entries
    ]


def _command(asked: FinetuneRequest, record: Mapping[str, Any] | None) -> str:
    """The commands that ask for this, without local paths."""
    published = names_repository(asked.source)
    folder = asked.source if published else _folder(asked.source).name
    words = ["vqzoo", "finetune", folder, "--epochs", str(asked.settings.epochs)]
    if asked.settings.data is not None:
        words += ["--data", public_data_name(asked.settings.data)]
    words += asked.settings.words()
    if asked.teacher is not None:
        words += ["--teacher", asked.teacher]
    if asked.checkpoint is not None:
        words += ["--checkpoint", asked.checkpoint.name]
    if asked.data is not None:
        words += ["--eval-data", public_data_name(asked.data)]
    if asked.images is not None:
        words += ["--images", str(asked.images)]
    if asked.seed:
        words += ["--seed", str(asked.seed)]
    for path in asked.plugins:
        words += ["--plugin", path.name]
    before = [f"{record['command']} --out {shlex.quote(folder)}"] if record else []
    return " && ".join([*before, shlex.join(words)])
