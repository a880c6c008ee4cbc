"""Artifacts that the Hub lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from huggingface_hub import HfApi

from vqzoo.hub.errors import hub_errors
from vqzoo.hub.repository import TAG


@dataclass(frozen=True)
class Listed:
    """What a repository's card says of its artifact; anybody may have written it.

    Attributes:
        repo: "org/name".
        model: the dense model's name.
        method: how it was compressed.
        bytes: size of the weights file.
        ratio: how much smaller the compressed weights are.
        top1: percent, on `data`; None where nothing was measured.
        data: the data set's name.
        private: whether only its owners see it.
    """

    repo: str
    model: str | None
    method: str | None
    bytes: int | None
    ratio: float | None
    top1: float | None
    data: str | None
    private: bool


def search(text: str = "", *, limit: int = 1000, token: str | None = None) -> list[Listed]:
    """The Hub's models tagged `vqzoo`.

    Args:
        text: words that must all occur in the repository's name, its tags, the dense model's name
            or the method.
        limit: list at most this many of the Hub's models before words are looked for.
        token: instead of the one stored here.

    Raises:
        VqzooError: the Hub cannot be asked.
    """
    words = text.lower().split()
    api = HfApi(token=token, library_name="vqzoo", library_version=version("vqzoo"))
    found = []
    with hub_errors("the list of models"):
        for info in api.list_models(filter=TAG, cardData=True, limit=limit):
            listed = _listed(info)
            places = " ".join(
                [listed.repo, listed.model or "", listed.method or "", *(info.tags or ())]
            )
            if all(word in places.lower() for word in words):
                found.append(listed)
    return found


def _listed(info: Any) -> Listed:
    card: Mapping[str, Any] = info.card_data.to_dict() if info.card_data else {}
    block = card.get("vqzoo")
    block = block if isinstance(block, dict) else {}
    top1, data = _accuracy(card)
    return Listed(
        repo=str(info.id),
        model=_text(block.get("model")),
        method=_text(block.get("method")),
        bytes=block["bytes"] if type(block.get("bytes")) is int else None,
        ratio=_number(block.get("ratio_layers")),
        top1=top1,
        data=data,
        private=bool(info.private),
    )


def _accuracy(card: Mapping[str, Any]) -> tuple[float | None, str | None]:
    try:
        for result in card["model-index"][0]["results"]:
            for metric in result["metrics"]:
                if metric["name"] == "top-1":
                    return _number(metric["value"]), _text(result["dataset"]["name"])
    except (KeyError, IndexError, TypeError):
        pass  # a card that says it otherwise, or not at all
    return None, None


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
