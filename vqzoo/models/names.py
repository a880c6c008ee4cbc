"""Names of models in timm's registry; see `registration` for what vqzoo adds to it."""

import timm

from vqzoo.errors import UsageError, did_you_mean
from vqzoo.models.sources import split_source


def check_name(name: str) -> None:
    """Refuse names that timm does not know.

    Raises:
        UsageError: gives the close matches.
    """
    if split_source(name)[0] is not None:
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"there is no model {name!r}{hint} `vqzoo models` lists them")
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = timm.list_pretrained(f"{architecture}.*")
        has = ", ".join(tags) if tags else "none"
        raise UsageError(f"{architecture} has no weights tagged {tag!r}; it has: {has}")


def full_name(name: str) -> str:
    """`architecture.tag`: the tag that timm takes by default where none was given."""
    if split_source(name)[0] is not None or "." in name:
        return name
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    return f"{name}.{cfg.tag}" if cfg is not None and cfg.tag else name
