"""The YAML metadata of a model card, from an artifact and its record."""

import math
import re
from collections.abc import Mapping
from typing import Any

from vqzoo.artifact.parts import code_entries
from vqzoo.artifact.reader import Artifact
from vqzoo.models.sources import HF_HUB, split_source

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
}  # fmt: skip


def pretrained_cfg(artifact: Artifact) -> dict[str, Any]:
    cfg = artifact.config.get("pretrained_cfg")
    return cfg if isinstance(cfg, dict) else {}


def method_names(artifact: Artifact) -> list[str]:
    """The methods of the layers, their children's included, in order of appearance."""
    layers = artifact.metadata.layers.values()
    entries = (entry for layer in layers for entry in code_entries(layer.code))
    return list(dict.fromkeys(entry.method for entry in entries))


def card_metadata(artifact: Artifact, record: Mapping[str, Any] | None, model: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    license_id, license_name = license_of(artifact)
    base = base_model(artifact, record)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image Classification",
            dataset_type=kind,
            dataset_name=name,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(value, 4),
        )
        for kind, name, split, title, value in eval_results(record)
    ]
    known: dict[str, Any] = {}
    if license_name:
        known["license_name"] = license_name
    if base:
        known |= {"base_model": base, "base_model_relation": "quantized"}
    if results:
        known |= {"model_name": f"{model} {artifact.block.method}", "eval_results": results}
    return ModelCardData(
        library_name="vqzoo",
        pipeline_tag="image-classification",
        license=license_id,
        tags=["vqzoo", "timm", *method_names(artifact)],
        vqzoo=_numbers(artifact, record, model),
        **known,
    )


def _numbers(
    artifact: Artifact, record: Mapping[str, Any] | None, model: str
) -> dict[str, str | int | float]:
    """What `vqzoo search` reads of a listing."""
    numbers: dict[str, str | int | float] = {
        "format_version": artifact.block.format_version,
        "model": model,
        "method": artifact.block.method,
        "bytes": artifact.block.bytes,
        "ratio_layers": round(_layers_ratio(artifact), 2),
    }
    if record is not None:
        numbers["ratio_file"] = round(record["ratio"]["file"], 2)
    return numbers


def eval_results(record: Mapping[str, Any] | None) -> list[tuple[str, str, str | None, str, float]]:
    """(data set's id, its name, split, metric, percent) of what was measured."""
    accuracy = record["accuracy"] if record is not None else None
    if accuracy is None:
        return []
    spec = str(accuracy["data"])
    kind, _, rest = spec.partition(":")
    if spec == "fmnist":
        data: tuple[str, str, str | None] = (
            "zalando-datasets/fashion_mnist", "Fashion-MNIST", "test",
        )  # fmt: skip
    elif kind == "imagefolder":
        data = ("imagefolder", rest or spec, None)
    else:
        name = spec.partition("/")[2] or spec
        data = (name, name, None)
    measured = accuracy["compressed"]
    found = [(*data, "top-1", float(measured["top1"]))]
    if measured["top5"] is not None:
        found.append((*data, "top-5", float(measured["top5"])))
    return found


def license_of(artifact: Artifact) -> tuple[str, str | None]:
    """The Hub's id of the dense weights' licence, and a name where it has none for it."""
    given = pretrained_cfg(artifact).get("license")
    if not isinstance(given, str) or not given:
        return "unknown", None
    return (given, None) if given in _LICENSES else ("other", given[:80])


def base_model(artifact: Artifact, record: Mapping[str, Any] | None) -> str | None:
    """The Hub's repository of the dense weights, if they came from one."""
    if artifact.block.weights != "pretrained":
        return None
    kind, rest = split_source(str(record["model"] if record else ""))
    found = rest if kind == HF_HUB else None
    if found is None:
        found = pretrained_cfg(artifact).get("hf_hub_id")
    found = found.partition("@")[0] if isinstance(found, str) else ""
    return found if _REPO_ID.fullmatch(found) else None


def _layers_ratio(artifact: Artifact) -> float:
    layers = artifact.metadata.layers
    stored = sum(artifact.layer_bytes(key) for key in layers)
    return 4 * sum(math.prod(entry.shape) for entry in layers.values()) / max(stored, 1)
