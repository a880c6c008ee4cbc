"""The YAML metadata of a model card, from an artifact and its record."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vqzoo.artifact.parts import code_entries
from vqzoo.artifact.reader import Artifact
from vqzoo.models.sources import HF_HUB, split_source
from vqzoo.report.record import Record

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

# The Hub's identifiers of the licences that timm's models have.
_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """A data set as the Hub describes one: its identifier, its name, and a split if known."""

    hub_id: str
    name: str
    split: str | None = None


def pretrained_cfg(artifact: Artifact) -> dict[str, Any]:
    """timm's `pretrained_cfg` of the model, empty if the artifact has none."""
    cfg = artifact.config.get("pretrained_cfg")
    return cfg if isinstance(cfg, dict) else {}


def model_name(artifact: Artifact, record: Record | None) -> str:
    """Full timm name of the model, as far as it is known without a record."""
    if record is not None:
        return record.model
    tag = pretrained_cfg(artifact).get("tag")
    name = str(artifact.config["architecture"])
    return f"{name}.{tag}" if tag else name


def method_names(artifact: Artifact) -> list[str]:
    """Names of the methods of all codes, child codes included, in order of appearance."""
    layers = artifact.metadata.layers.values()
    entries = (entry for layer in layers for entry in code_entries(layer.code))
    return list(dict.fromkeys(entry.method for entry in entries))


def card_metadata(artifact: Artifact, record: Record | None, model: str) -> Any:
    """The metadata as huggingface_hub's `ModelCardData`."""
    from huggingface_hub import EvalResult, ModelCardData

    license_id, license_name = license_of(artifact)
    base = base_model(artifact, record)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image Classification",
            dataset_type=data.hub_id,
            dataset_name=data.name,
            dataset_split=data.split,
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(value, 4),
        )
        for data, title, value in _scores(record)
    ]
    optional: dict[str, Any] = {}
    if license_name:
        optional["license_name"] = license_name
    if base:
        optional |= {"base_model": base, "base_model_relation": "quantized"}
    if results:
        optional |= {"model_name": f"{model} {artifact.block.method}", "eval_results": results}
    return ModelCardData(
        library_name="vqzoo",
        pipeline_tag="image-classification",
        license=license_id,
        tags=["vqzoo", "timm", *method_names(artifact)],
        vqzoo=_figures(artifact, record, model),
        **optional,
    )


def _figures(artifact: Artifact, record: Record | None, model: str) -> dict[str, str | int | float]:
    """The figures that `vqzoo search` shows."""
    figures: dict[str, str | int | float] = {
        "format_version": artifact.block.format_version,
        "model": model,
        "method": artifact.block.method,
        "bytes": artifact.block.bytes,
        "ratio_layers": round(_layers_ratio(artifact), 2),
    }
    if record is not None:
        figures["ratio_file"] = round(record.ratio.file, 2)
    return figures


def _layers_ratio(artifact: Artifact) -> float:
    layers = artifact.metadata.layers
    stored = sum(artifact.layer_bytes(key) for key in layers)
    return 4 * sum(math.prod(entry.shape) for entry in layers.values()) / max(stored, 1)


def _scores(record: Record | None) -> Iterator[tuple[DataSet, str, float]]:
    """Data set, metric and value in percent of each score of the compressed network."""
    if record is None or record.accuracy is None:
        return
    data, scores = data_set(record.accuracy.data), record.accuracy.compressed
    yield data, "top-1", scores.top1
    if scores.top5 is not None:
        yield data, "top-5", scores.top5


def data_set(spec: str) -> DataSet:
    """The data set that a `--data` specification names."""
    kind, _, rest = spec.partition(":")
    if spec == "fmnist":
        return DataSet("zalando-datasets/fashion_mnist", "Fashion-MNIST", "test")
    if kind == "imagefolder":
        return DataSet("imagefolder", rest or spec)
    name = spec.partition("/")[2] or spec
    return DataSet(name, name)


def license_of(artifact: Artifact) -> tuple[str, str | None]:
    """The Hub's identifier of the dense weights' licence, and its name where the Hub has none."""
    license = pretrained_cfg(artifact).get("license")
    if not isinstance(license, str) or not license:
        return "unknown", None
    return (license, None) if license in _LICENSES else ("other", license[:80])


def base_model(artifact: Artifact, record: Record | None) -> str | None:
    """The Hub repository of the dense weights; None if they did not come from one."""
    if artifact.block.weights != "pretrained":
        return None
    kind, rest = split_source(record.model if record is not None else "")
    repo = rest if kind == HF_HUB else pretrained_cfg(artifact).get("hf_hub_id")
    repo = repo.partition("@")[0] if isinstance(repo, str) else ""
    return repo if _REPO_ID.fullmatch(repo) else None
