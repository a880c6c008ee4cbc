"""What a Hub reads from a README.md: the metadata, errors in it, and the tags that follow."""

import re
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENSES = {
    "apache-2.0", "mit", "openrail", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0",
    "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "unknown", "other",
}  # fmt: skip


def card_metadata(text: str) -> dict[str, Any]:
    """The metadata of a README.md; empty if there is none or the Hub would refuse it."""
    return {} if metadata_errors(text) else _parse(text)


def _parse(text: str) -> Any:
    match = _FRONT_MATTER.match(text)
    return yaml.safe_load(match[1]) if match else {}


def metadata_errors(text: str) -> list[str]:
    """The errors for which the Hub would refuse the metadata of a README.md."""
    try:
        card = _parse(text)
    except yaml.YAMLError as error:
        return [f"not YAML: {' '.join(str(error).split())}"]
    if not isinstance(card, dict):
        return ["the metadata is not a mapping"]
    errors = []
    if card.get("license", "other") not in _LICENSES:
        errors.append(f'"license" must be one of {", ".join(sorted(_LICENSES))}')
    if card.get("license") == "other" and not card.get("license_name", "other"):
        errors.append('"license_name" must not be empty')
    for key in ("library_name", "pipeline_tag", "license_name", "base_model_relation"):
        if not isinstance(card.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    for key in ("tags", "datasets"):
        values = card.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            errors.append(f'"{key}" must be an array of strings')
    bases = card.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str) or not _REPO_ID.fullmatch(base):
            errors.append('"base_model" must be a repository id')
    return errors + _index_errors(card.get("model-index", []))


def _index_errors(index: Any) -> list[str]:
    try:
        for model in index:
            if not isinstance(model["name"], str):
                return ['"model-index[0].name" must be a string']
            for result in model["results"]:
                texts = (result["task"]["type"], result["dataset"]["type"])
                texts += (result["dataset"]["name"], *(m["type"] for m in result["metrics"]))
                if not all(isinstance(text, str) and text for text in texts):
                    return ['"model-index" holds a name or type that is not a string']
                if not all("value" in metric for metric in result["metrics"]):
                    return ['"model-index" holds a metric without a value']
    except (KeyError, TypeError) as error:
        return [f'"model-index" lacks {error}']
    return []


def repo_tags(card: dict[str, Any]) -> list[str]:
    """The tags under which the Hub lists a repository with this metadata."""
    tags = [*card.get("tags", [])]
    tags += [card[key] for key in ("library_name", "pipeline_tag") if card.get(key)]
    if card.get("license"):
        tags.append(f"license:{card['license']}")
    bases = card.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        tags.append(f"base_model:{base}")
        if card.get("base_model_relation"):
            tags.append(f"base_model:{card['base_model_relation']}:{base}")
    tags += [f"dataset:{name}" for name in card.get("datasets", [])]
    return list(dict.fromkeys(tags))
