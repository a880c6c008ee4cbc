"""The model card: what an artifact's page says, from its headers and the record of its run."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqzoo.artifact.dtypes import BY_STORED_NAME
from vqzoo.artifact.files import new_file, write_text
from vqzoo.artifact.reader import Artifact, open_artifact
from vqzoo.artifact.schema import CARD_FILE, PLOT_FILE, REPORT_FILE, WEIGHTS_FILE
from vqzoo.compression.view import layer_name
from vqzoo.plugin.manager import Plugins
from vqzoo.report.card_metadata import (
    base_model,
    card_metadata,
    eval_results,
    license_of,
    method_names,
    pretrained_cfg,
)
from vqzoo.report.card_plot import draw_bytes
from vqzoo.report.formatting import by_reason, decibels, megabytes, nats, points
from vqzoo.report.markdown import code, plain, table

# Stands for the repository in a card that lies at home; pushing puts the name in its place.
REPO_PLACEHOLDER = "ORG/NAME"


def write_card(folder: Path, plugins: Plugins) -> None:
    """Write README.md and its picture beside an artifact whose report.json is there."""
    artifact = open_artifact(folder)
    write_text(folder / CARD_FILE, render_card(artifact, read_record(artifact), plugins))
    with new_file(folder / PLOT_FILE) as temporary:
        draw_bytes(artifact, temporary)


def read_record(artifact: Artifact) -> dict[str, Any] | None:
    """The record of the run that made an artifact; None where none of its own lies with it."""
    path = artifact.folder / REPORT_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    own = record["bytes"]["file"] == artifact.block.bytes
    layers = {layer_name(key) for key in artifact.metadata.layers}
    return record if own and {row["name"] for row in record["layers"]} == layers else None


def render_card(artifact: Artifact, record: Mapping[str, Any] | None, plugins: Plugins) -> str:
    """The text of README.md.

    Args:
        artifact: checked headers.
        record: of the run that made it; without one, what only a run knows (accuracy, errors,
            the command) is left out or said not to be known.
        plugins: where methods' papers are looked up.
    """
    model = _name(artifact, record)
    sections = [
        f"# {plain(model)}, compressed by {plain(' and '.join(method_names(artifact)))}",
        _sentence(artifact, record, model),
        _use(artifact),
        _sizes(artifact, record),
        _accuracy(record),
        _layers(artifact, record),
        _making(artifact, record),
        _costs(artifact),
        _origin(artifact, record, plugins),
    ]
    metadata = card_metadata(artifact, record, model).to_yaml(line_break="\n")
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n"


def _name(artifact: Artifact, record: Mapping[str, Any] | None) -> str:
    if record is not None:
        return str(record["model"])
    tag = pretrained_cfg(artifact).get("tag")
    name = str(artifact.config["architecture"])
    return f"{name}.{tag}" if tag else name


def _sentence(artifact: Artifact, record: Mapping[str, Any] | None, model: str) -> str:
    count = len(artifact.metadata.layers)
    methods = ", ".join(code(name) for name in method_names(artifact))
    size = f"{megabytes(artifact.block.bytes)}"
    if record is not None:
        ratio = record["ratio"]["file"]
        size += f" instead of {megabytes(record['bytes']['dense'])} ({ratio:.1f}x smaller)"
    what = "weight" if count == 1 else "weights"
    return (
        f"The image model {code(model)} with {count} {what} compressed by {methods}, the rest left "
        f"as it was: {size}, for vqzoo and "
        "[timm](https://github.com/huggingface/pytorch-image-models)."
    )


def _use(artifact: Artifact) -> str:
    size = pretrained_cfg(artifact).get("input_size")
    mode = "L" if isinstance(size, list) and size[:1] == [1] else "RGB"
    return f"""## Use

`pip install vqzoo`, then

```python
import timm
import torch
import vqzoo
from PIL import Image

model = vqzoo.load("{REPO_PLACEHOLDER}")  # timm's module in eval mode, its weights decoded
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("image.jpg").convert("{mode}")
with torch.no_grad():
    logits = model(transform(image).unsqueeze(0))
```"""


def _sizes(artifact: Artifact, record: Mapping[str, Any] | None) -> str:
    layers = artifact.metadata.layers
    dense = 4 * sum(math.prod(entry.shape) for entry in layers.values())
    stored = sum(artifact.layer_bytes(key) for key in layers)
    rows = [("compressed weights", megabytes(dense), megabytes(stored), f"{dense / stored:.1f}x")]
    lines = ["## Size", ""]
    if record is not None:
        size, ratio = record["bytes"], record["ratio"]
        rows.append(
            ("whole file", megabytes(size["dense"]), megabytes(size["file"]),
             f"{ratio['file']:.1f}x")
        )  # fmt: skip
    lines.append(table(("", "fp32", "on disk", "ratio"), rows, right=(1, 2, 3)))
    lines += [
        "",
        "Every stored byte counts: codes, codebooks, scales and, in the file, its header.",
    ]
    if record is not None and record["ratio"]["theoretical"] is not None:
        theory = record["ratio"]["theoretical"]
        lines.append(f"By the formula of the method's paper the ratio would be {theory:.1f}x.")
    lines += ["", f"![Where the bytes went]({PLOT_FILE})"]
    return "\n".join(lines)


def _accuracy(record: Mapping[str, Any] | None) -> str:
    accuracy = record["accuracy"] if record is not None else None
    if accuracy is None:
        text = "The accuracy of this artifact was not measured."
        agreement = record["agreement"] if record is not None else None
        if agreement is not None:
            text += (
                f" On {agreement['images']:,} images of {plain(agreement['data'])}, which have no "
                f"labels, {agreement['top1']:.2f}% of its top-1 answers are those of the dense "
                f"model (mean KL divergence {nats(agreement['kl'])})."
            )
        return f"## Accuracy\n\n{text}"
    before, after, change = accuracy["dense"], accuracy["compressed"], accuracy["difference"]
    rows = [
        ("top-1", f"{before['top1']:.2f}%", f"{after['top1']:.2f}%",
         f"{points(change['top1'], change['ci95'])} points")
    ]  # fmt: skip
    if before["top5"] is not None:
        gained = after["top5"] - before["top5"]
        rows.append(
            ("top-5", f"{before['top5']:.2f}%", f"{after['top5']:.2f}%", f"{gained:+.2f} points")
        )
    ((_, name, split, _, _), *_) = eval_results(record)
    where = plain(name) + (f", {split} split" if split else "")
    return "\n".join(
        [
            "## Accuracy",
            "",
            f"On {accuracy['images']:,} images of {where}, of the artifact as it was read back "
            "from disk, and of the dense model on the same images"
            + (" (± is a 95% confidence interval):" if change["ci95"] is not None else ":"),
            "",
            table(("", "dense", "compressed", "change"), rows, right=(1, 2, 3)),
        ]
    )


def _layers(artifact: Artifact, record: Mapping[str, Any] | None) -> str:
    errors = {row["name"]: row for row in (record["layers"] if record is not None else [])}
    rows = []
    order = {name: place for place, name in enumerate(errors)}
    layers = sorted(
        artifact.metadata.layers.items(),
        key=lambda item: order.get(layer_name(item[0]), 0),
    )
    for key, entry in layers:
        name = layer_name(key)
        count, stored = math.prod(entry.shape), artifact.layer_bytes(key)
        given = sorted(entry.options.items())
        options = ", ".join(f"{option}={value}" for option, value in given if value is not None)
        cells = [
            code(name or key),
            "×".join(str(size) for size in entry.shape),
            code("+".join(entry.methods)),
            code(options),
            f"{8 * stored / count:.2f}" if count else "-",
            f"{4 * count / stored:.1f}x" if stored else "-",
        ]
        if errors:
            value = errors[name]["sqnr_db"] if name in errors else None
            cells.append(decibels(value))
        rows.append([*cells, f"{stored:,}"])
    titles = ["layer", "shape", "method", "options", "bits/weight", "ratio"]
    titles += [*(["SQNR dB"] if errors else []), "bytes"]
    lines = ["## Layers", "", table(titles, rows, right=range(4, len(titles)))]
    skipped = record["skipped"] if record is not None else {}
    if skipped:
        lines += ["", f"Left dense: {_reasons(skipped)}."]
    return "\n".join(lines)


def _reasons(skipped: Mapping[str, str]) -> str:
    found = by_reason(skipped).items()
    return "; ".join(f"{_few(names)} ({plain(reason)})" for reason, names in found)


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} layers" if len(names) > 8 else ", ".join(code(name) for name in names)


def _making(artifact: Artifact, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return (
            "## How it was made\n\nBy `vqzoo.compress` on a model in memory, by the methods and "
            "options above."
        )
    versions = ", ".join(f"{plain(name)} {plain(v)}" for name, v in record["versions"].items())
    command = record["command"].replace("`", "'").replace("\n", " ")
    return (
        f"## How it was made\n\n```sh\n{command}\n```\n\n"
        f"with {versions}. The same command, weights and versions give the same bytes on one "
        f"machine; the sha256 of `{WEIGHTS_FILE}` is `{artifact.block.sha256}`."
        + "".join(f"\n\n{step}" for step in _steps(record))
    )


def _steps(record: Mapping[str, Any]) -> Iterator[str]:
    """What was done beside compressing; records of older versions lack some of it."""
    if (calibration := record.get("calibration")) is not None:
        yield (
            "The methods that can weighed errors by what each layer saw of calibration images: "
            f"{plain(calibration['data'])}."
        )
    if (repair := record.get("repair")) is not None:
        norms, biases = len(repair["norms"]), len(repair["biases"])
        yield (
            f"Without labels, the statistics of {norms} batch norms and {biases} biases were then "
            f"corrected on {plain(repair['data'])}."
        )
    methods = dict.fromkeys(stage["method"] for stage in record.get("stages", ())[1:])
    if len(methods) > 1:
        names = ", then ".join(code(name) for name in methods)
        yield f"It was compressed in stages, and fine-tuned after each: {names}."
    if (finetuning := record.get("finetuning")) is not None:
        yield _finetuned(finetuning, record["model"])


def _finetuned(finetuning: Mapping[str, Any], model: str) -> str:
    kept, epochs = finetuning["best_epoch"], len(finetuning["history"]) - 1
    named = finetuning.get("teacher", model)
    teacher = "the dense model" if named == model else code(named)
    if kept:
        best = f"It did best after epoch {kept} of {epochs} on images held out of those."
    else:
        best = f"On images held out of those no epoch of {epochs} did better: the start is kept."
    return (
        f"It was fine-tuned by distillation on {plain(finetuning['data'])}: codes stayed, "
        f"{teacher} taught the rest. {best} With another number of threads sums round otherwise, "
        "and so do bytes."
    )


def _costs(artifact: Artifact) -> str:
    tensors = artifact.dense_tensors().values()
    dense = sum(
        4 * math.prod(t.shape) if BY_STORED_NAME[t.dtype].is_floating_point else t.nbytes
        for t in tensors
    )
    decoded = dense + 4 * sum(math.prod(e.shape) for e in artifact.metadata.layers.values())
    codes = sum(artifact.layer_bytes(key) for key in artifact.metadata.layers)
    return (
        "## What it costs to run\n\n"
        f"`vqzoo.load` decodes the weights: they then take {megabytes(decoded)} of memory, and "
        "the network is an ordinary one. As codes, codebooks and what was left dense they take "
        f"{megabytes(codes + sum(t.nbytes for t in tensors))}. No speed-up is claimed: none was "
        "measured."
    )


def _origin(artifact: Artifact, record: Mapping[str, Any] | None, plugins: Plugins) -> str:
    license_id, license_name = license_of(artifact)
    base, weights = base_model(artifact, record), artifact.block.weights
    if base:
        origin = f"The dense weights are those of [{plain(base)}](https://huggingface.co/{base})"
    elif weights == "pretrained":
        origin = f"The dense weights are those of {code(_name(artifact, record))}"
    else:
        origin = f"The dense weights came from elsewhere ({code(weights)})"
    if license_id == "unknown":
        licence = "; their licence is not recorded, and it holds for this artifact too"
    else:
        name = plain(license_name or license_id)
        licence = f"; their licence, {name}, holds for this artifact too"
    lines = ["## Origin, licence and papers", "", origin + licence + ".", ""]
    known = {*plugins.quantizers.names(), *plugins.transforms.names()}
    for name in method_names(artifact):
        source = plugins.method(name).item.source if name in known else ""
        lines.append(f"* {code(name)}: {plain(source, 400) or 'no source given by its plugin'}")
    return "\n".join(lines)
