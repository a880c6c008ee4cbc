"""Names of models: what timm knows, with vqzoo's own and the plugins' registrations."""

import difflib

import timm

from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


def register_models(plugins: Plugins) -> None:
    """Register vqzoo's AlexNets and the plugins' models with timm."""
    import vqzoo.models.alexnet
    import vqzoo.models.alexnet_mini  # noqa: F401

    plugins.notify("vqzoo_models")


def check_name(name: str) -> None:
    """Refuse names that timm does not know.

    Raises:
        UsageError: gives the close matches.
    """
    if name.startswith(SOURCES):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        close = difflib.get_close_matches(architecture, known, n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(f"no model called {name!r}; {hint}see `vqzoo models`")
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = timm.list_pretrained(f"{architecture}.*")
        has = ", ".join(tags) if tags else "none"
        raise UsageError(f"{architecture} has no weights tagged {tag!r}; it has: {has}")


def full_name(name: str) -> str:
    """`architecture.tag`: the tag that timm takes by default where none was given."""
    if name.startswith(SOURCES) or "." in name:
        return name
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    return f"{name}.{cfg.tag}" if cfg is not None and cfg.tag else name
