"""Where a shared folder keeps what."""

from pathlib import Path


def statistics_folder(shared: Path | None) -> Path | None:
    """The folder of second-order statistics; None where nothing is shared."""
    return None if shared is None else shared / "second-order"


def evaluation_file(shared: Path, digest: str) -> Path:
    """The file of a dense model's evaluation."""
    return shared / "dense" / f"{digest}.json"
