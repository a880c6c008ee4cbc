"""Where a model or an artifact comes from: `hf-hub:org/name@revision`, `local-dir:path`, or a name
without a prefix.
"""

import re
from pathlib import Path

HF_HUB = "hf-hub"
LOCAL_DIR = "local-dir"
_KINDS = {"hf-hub": HF_HUB, "hf_hub": HF_HUB, "local-dir": LOCAL_DIR}  # timm reads both spellings

_NAME = r"[A-Za-z0-9_][\w.-]{0,95}"
_HUB_ID = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(@(?P<revision>[^\s@]{{1,255}}))?")


def split_source(text: str) -> tuple[str | None, str]:
    """Split a prefix off.

    Returns:
        (HF_HUB or LOCAL_DIR, the text behind the prefix); (None, the whole text) without a prefix.
    """
    prefix, colon, rest = text.partition(":")
    return (_KINDS[prefix], rest) if colon and prefix in _KINDS else (None, text)


def parse_hub_id(text: str) -> tuple[str, str | None] | None:
    """(repository, revision) of `[hf-hub:]org/name[@revision]`; None for anything else."""
    kind, name = split_source(text)
    match = _HUB_ID.fullmatch(name) if kind != LOCAL_DIR else None
    return (match["repo"], match["revision"]) if match else None


def local_path(text: str) -> Path:
    """The folder that `[local-dir:]path` names."""
    kind, path = split_source(text)
    return Path(path if kind == LOCAL_DIR else text)


def names_repository(source: str | Path) -> bool:
    """Whether `source` names a repository on the Hub and not a folder."""
    if isinstance(source, Path) or Path(source).is_dir():
        return False
    return split_source(source)[0] == HF_HUB or parse_hub_id(source) is not None
