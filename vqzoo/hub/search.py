"""Search the Hub for artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from huggingface_hub import HfApi

from vqzoo.hub.errors import hub_errors
from vqzoo.hub.repository import TAG


@dataclass(frozen=True)
class Listed:
    """What the card of a repository claims about its artifact. Anyone may have written it.

    Attributes:
        repo: "org/name".
        model: name of the dense model.
        method: the compression method.
        bytes: size of the weights file.
        ratio: float32 bytes of the compressed weights over their stored bytes.
        top1: top-1 accuracy on `data` in percent; None if it was not measured.
        data: name of the data set.
        private: whether only its owners may see it.
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
    """Search the models on the Hub that have the tag `vqzoo`.

    Args:
        text: words, each of which must occur in the name of the repository, in a tag, in the name
            of the dense model or in the method.
        limit: fetch at most this many models from the Hub before they are filtered by `text`.
        token: a token to use instead of the one stored here.

    Raises:
        VqzooError: the Hub cannot be reached, or reports an error.
    """
    words = text.lower().split()
    api = HfApi(token=token, library_name="vqzoo", library_version=version("vqzoo"))
    matches = []
    with hub_errors("the list of models"):
        for info in api.list_models(filter=TAG, cardData=True, limit=limit):
            listed = _listed(info)
            searched = " ".join(
                [listed.repo, listed.model or "", listed.method or "", *(info.tags or ())]
            )
            if all(word in searched.lower() for word in words):
                matches.append(listed)
    return matches


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
        pass  # the card has no accuracy, or has it in another form
    return None, None


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
