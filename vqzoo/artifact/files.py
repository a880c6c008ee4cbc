"""Write files whole or not at all; hash files and JSON."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block writes there becomes `path` at its end.

    A block that fails leaves `path` as it was, and no temporary file.
    """
    with _becoming(path, path.with_name(path.name + ".tmp")) as temporary:
        yield temporary


@contextmanager
def shared_file(path: Path) -> Iterator[Path]:
    """`new_file` where other processes may write the same file: each writes one of its own, and the
    last one stays. Creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _becoming(path, path.with_name(f"{path.stem}-{uuid4().hex}.tmp")) as temporary:
        yield temporary


@contextmanager
def _becoming(path: Path, temporary: Path) -> Iterator[Path]:
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def cache_folder() -> Path:
    """`VQZOO_CACHE`, by default `vqzoo` in the user's cache folder."""
    if folder := os.environ.get("VQZOO_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vqzoo"


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_text(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def record_sha256(method: str, weights: str) -> str:
    """Hex sha256 of what the `vqzoo` block of a config says about the run."""
    return sha256_text(canonical_json({"method": method, "weights": weights}))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
