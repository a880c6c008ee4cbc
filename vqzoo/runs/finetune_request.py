"""The request of `vqzoo finetune`: its hash, its default folder and its canonical command."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from vqzoo.artifact.files import canonical_json, sha256_text
from vqzoo.artifact.reader import Artifact
from vqzoo.finetuning.settings import Finetuning
from vqzoo.models.dense import OpenedModel
from vqzoo.models.sources import local_path, split_source
from vqzoo.network.load import names_repository
from vqzoo.plugin.manager import Plugins
from vqzoo.report.record import Record
from vqzoo.runs.command_line import public_data_name


@dataclass(frozen=True)
class FinetuneRequest:
    """An artifact to fine-tune, and how.

    Attributes:
        source: the artifact's folder, or its repository on the Hub.
        settings: how to fine-tune, and on which images.
        teacher: a timm model to learn from; None for the dense model that the record names.
        checkpoint: weights of the dense model, where timm does not have them.
        data: the images to measure on; None for the dense model's own.
        images: measure on at most this many images.
        seed: seed of the order and augmentation of the training images.
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


def finetune_digest(
    request: FinetuneRequest,
    artifact: Artifact,
    dense: OpenedModel,
    teacher: OpenedModel,
    plugins: Plugins,
) -> str:
    """A hash of the request and of the weights and plugin versions that it resolved to."""
    fields = {
        "source": artifact.block.sha256,
        "settings": request.settings.model_dump(mode="json"),
        "weights": [dense.weights_sha256, teacher.weights_sha256],
        "data": [request.data, request.images],
        "seed": request.seed,
        "device": request.device,
        "versions": {s.origin.distribution: s.origin.version for s in plugins.statuses},
    }
    return sha256_text(canonical_json(fields))


def default_target(source: str) -> Path:
    """`<source>-finetuned`, beside the source folder or, for a repository, named after it in the
    working directory."""
    if names_repository(source):
        return Path(split_source(source)[1].partition("@")[0] + "-finetuned")
    folder = _source_folder(source)
    return folder.with_name(folder.name + "-finetuned")


def finetune_command(request: FinetuneRequest, record: Record | None) -> str:
    """A command that makes the fine-tuned artifact again, without local folders.

    Where the source's record is known, the command that made the source comes first.
    """
    published = names_repository(request.source)
    source = request.source if published else _source_folder(request.source).name
    words = ["vqzoo", "finetune", source, "--epochs", str(request.settings.epochs)]
    if request.settings.data is not None:
        words += ["--data", public_data_name(request.settings.data)]
    words += request.settings.words()
    if request.teacher is not None:
        words += ["--teacher", request.teacher]
    if request.checkpoint is not None:
        words += ["--checkpoint", request.checkpoint.name]
    if request.data is not None:
        words += ["--eval-data", public_data_name(request.data)]
    if request.images is not None:
        words += ["--images", str(request.images)]
    if request.seed:
        words += ["--seed", str(request.seed)]
    for path in request.plugins:
        words += ["--plugin", path.name]
    compression = [f"{record.command} --out {shlex.quote(source)}"] if record is not None else []
    return " && ".join([*compression, shlex.join(words)])


def _source_folder(source: str) -> Path:
    """An artifact's folder, with "." and ".." resolved to real names."""
    folder = local_path(source)
    return folder.resolve() if folder.name in ("", "..") else folder
