"""Names of models in timm's registry; see `registration` for what vqzoo adds to it."""

import timm

from vqzoo.artifact.weights_only import refuse_weights_only
from vqzoo.errors import UsageError, did_you_mean
from vqzoo.models.sources import HF_HUB, local_path, split_source


def check_name(name: str) -> None:
    """Refuse a name that is not in timm's registry, and a folder that holds weights only.

    Raises:
        UsageError: quotes near matches, or the tags that the architecture has.
    """
    if split_source(name)[0] != HF_HUB:
        refuse_weights_only(local_path(name))
    if split_source(name)[0] is not None:
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"there is no model {name!r}{hint} `vqzoo models` lists them")
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = timm.list_pretrained(f"{architecture}.*")
        known = ", ".join(tags) if tags else "none"
        raise UsageError(f"{architecture} has no weights tagged {tag!r}; it has: {known}")


def full_name(name: str) -> str:
    """`architecture.tag`, with timm's default tag for a name without one."""
    if split_source(name)[0] is not None or "." in name:
        return name
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    return f"{name}.{cfg.tag}" if cfg is not None and cfg.tag else name
