"""Images whose answer changed by compression: both networks run, nothing is taken on trust."""

import base64
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vqzoo.artifact.reader import open_artifact
from vqzoo.data.batches import Data
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.model_input import ModelInput, input_of
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.accuracy import evaluating
from vqzoo.evaluation.answers import logits_of
from vqzoo.network.load import load
from vqzoo.page.collect import Run
from vqzoo.progress import Steps, Watcher
from vqzoo.runs.source_artifact import recorded_dense_model

_EMBEDDED = "fmnist"  # images that come with vqzoo, under a licence that lets pages show them
_SIDE = 96  # pixels of a picture at most


@dataclass(frozen=True)
class ExampleOptions:
    """Which examples to look for.

    Attributes:
        count: pictures for each artifact at most.
        data: the images, as for `open_data`; None for the embedded ones of networks measured on
            them.
        images: how many of them to run on, evenly spaced.
        checkpoint: weights of the dense network, where they came from a file.
    """

    count: int
    data: str | None = None
    images: int = 1000
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Example:
    """An image that the networks put in different classes.

    Attributes:
        picture: PNG as a data URI: what the networks see.
        label: its class; None where that is not known.
        before: the dense network's answer.
        after: the artifact's.
        p_before: the probability that the dense network gives its answer.
        p_after: the probability that the artifact gives its own.
        kind: "lost" (right before, wrong after), "gained", or "changed".
    """

    picture: str
    label: str | None
    before: str
    after: str
    p_before: float
    p_after: float
    kind: str


@dataclass(frozen=True)
class Examples:
    """How an artifact's answers differ from the dense network's.

    Attributes:
        data: name of the images.
        images: how many both networks answered.
        lost: images that the dense network alone has right.
        gained: images that the artifact alone has right.
        changed: other images with different answers.
        agree: percentage of images with equal answers.
        kl: mean KL(dense ‖ artifact) in nats; None if not finite.
        shown: some of the images, those first on which the dense network was surest.
    """

    data: str
    images: int
    lost: int
    gained: int
    changed: int
    agree: float
    kl: float | None
    shown: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Dense:
    """A dense network's answers: (N, classes) logits in float32, beside its images."""

    data: Data
    input: ModelInput
    logits: Tensor


def find_examples(
    runs: Sequence[Run], options: ExampleOptions, watcher: Watcher
) -> list[Examples | str]:
    """Run each artifact and its dense network on the same images, and compare the answers.

    Dense networks are opened and run once each.

    Returns:
        For each run its examples, or one line that says why there are none.
    """
    results: list[Examples | str] = []
    opened: dict[tuple[str, str, str], _Dense | str] = {}
    for run in runs:
        spec = _data_of(run, options)
        key = (run.record.model, run.record.weights_sha256, spec or "")
        if key not in opened:
            opened.clear()  # one dense network in memory at a time
            opened[key] = _dense_or_reason(run, spec, options, watcher)
        dense = opened[key]
        if isinstance(dense, str):
            results.append(dense)
            continue
        try:
            with watcher.images(f"answers of {run.name}") as steps:
                results.append(_compare(load(run.folder), dense, options.count, steps))
        except VqzooError as error:
            results.append(str(error))
    return results


def _data_of(run: Run, options: ExampleOptions) -> str | None:
    if options.data is not None:
        return options.data
    measured = run.record.accuracy or run.record.agreement
    return _EMBEDDED if measured is not None and measured.data == _EMBEDDED else None


def _dense_or_reason(
    run: Run, spec: str | None, options: ExampleOptions, watcher: Watcher
) -> _Dense | str:
    if spec is None:
        return "its images do not come with vqzoo: name them with --data imagefolder:PATH"
    try:
        return _open_dense(run, spec, options, watcher)
    except VqzooError as error:
        return str(error)


def _open_dense(run: Run, spec: str, options: ExampleOptions, watcher: Watcher) -> _Dense:
    """Open the dense network that a run compressed, and run it.

    Raises:
        UsageError: its weights or its images are not here.
        VqzooError: they cannot be read.
    """
    artifact = open_artifact(run.folder)
    if artifact.weights_only:
        raise UsageError("it has weights only, and no architecture that vqzoo could build")
    network = recorded_dense_model(artifact, run.record, options.checkpoint, watcher).module
    data = open_data(spec, network, images=options.images)
    logits = []
    with (
        watcher.images(f"answers of the dense {run.record.model}") as steps,
        evaluating(network, "cpu"),
    ):
        for batch in data:
            logits.append(logits_of(network, batch.images).float())
            steps(sum(map(len, logits)), data.images)
    return _Dense(data, input_of(network), torch.cat(logits))


def _compare(artifact: nn.Module, dense: _Dense, count: int, steps: Steps) -> Examples:
    """Run an artifact on the images that its dense network answered.

    Raises:
        UsageError: the networks differ in their classes.
        VqzooError: the images cannot be read.
    """
    tally: Counter[str] = Counter()
    changes: list[_Change] = []
    divergence, done = 0.0, 0
    with evaluating(artifact, "cpu"):
        for images, labels in dense.data:
            before = dense.logits[done : done + len(images)].double()
            after = logits_of(artifact, images).double()
            if before.shape != after.shape:
                raise UsageError(
                    f"it has {after.shape[1]} classes and its dense network {before.shape[1]}"
                )
            divergence += float(_divergence(before, after).sum())
            new = _changes(images, labels, before, after)
            tally.update(change.kind for change in new)
            # The sort is stable: among equals the earlier images stay.
            changes = sorted(changes + new, key=lambda change: -change.p_before)[:count]
            done += len(images)
            steps(done, dense.data.images)
    kl = divergence / done
    return Examples(
        data=dense.data.name,
        images=done,
        lost=tally["lost"],
        gained=tally["gained"],
        changed=tally["changed"],
        agree=100 * (1 - tally.total() / done),
        kl=kl if math.isfinite(kl) else None,
        shown=tuple(_example(change, dense.input) for change in changes),
    )


@dataclass(frozen=True)
class _Change:
    """An image (C, H, W), and the classes and probabilities of two different answers to it."""

    image: Tensor
    label: int | None
    before: int
    after: int
    p_before: float
    p_after: float

    @property
    def kind(self) -> str:
        """As of an `Example`."""
        if self.label == self.before:
            return "lost"
        return "gained" if self.label == self.after else "changed"


def _changes(images: Tensor, labels: Tensor | None, before: Tensor, after: Tensor) -> list[_Change]:
    """The images of a batch whose answers differ, given both networks' logits (B, classes)."""
    p, q = before.softmax(1).max(1), after.softmax(1).max(1)
    return [
        _Change(
            image=images[i].clone(),
            label=None if labels is None else int(labels[i]),
            before=int(p.indices[i]),
            after=int(q.indices[i]),
            p_before=float(p.values[i]),
            p_after=float(q.values[i]),
        )
        for i in (p.indices != q.indices).nonzero()[:, 0].tolist()
    ]


def _example(change: _Change, model_input: ModelInput) -> Example:
    return Example(
        picture=_thumbnail(change.image, model_input),
        label=None if change.label is None else _class_name(change.label, model_input),
        before=_class_name(change.before, model_input),
        after=_class_name(change.after, model_input),
        p_before=change.p_before,
        p_after=change.p_after,
        kind=change.kind,
    )


def _divergence(before: Tensor, after: Tensor) -> Tensor:
    """KL(dense ‖ artifact) in nats of each row of logits: (B,)."""
    p, q = before.log_softmax(1), after.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def _class_name(index: int, model_input: ModelInput) -> str:
    names = model_input.label_names
    return names[index] if index < len(names) else f"class {index}"


def _thumbnail(image: Tensor, model_input: ModelInput) -> str:
    """A preprocessed image (C, H, W) as pixels again: PNG as a data URI."""
    mean, std = (torch.tensor(model_input.config[key])[:, None, None] for key in ("mean", "std"))
    pixels = (image.float() * std + mean).mul(255).round().clamp(0, 255).byte()
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
