"""Refuse artifacts of weights alone where an architecture is needed."""

from pathlib import Path

from vqzoo.artifact.reader import Artifact, open_artifact
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.errors import UsageError, VqzooError


def need_architecture(artifact: Artifact) -> None:
    """Refuse an artifact that does not say how to build its network.

    Raises:
        UsageError: it holds weights only.
    """
    if artifact.weights_only:
        raise UsageError(
            f"{artifact.folder} holds weights only, and no architecture: build the network "
            "in Python, and call vqzoo.load_into(model, folder)"
        )


def refuse_weights_only(folder: Path) -> None:
    """Refuse a folder that holds weights only; let anything else pass, damaged or not.

    Raises:
        UsageError: as `need_architecture` does.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        return
    try:
        artifact = open_artifact(folder)
    except VqzooError:
        return
    need_architecture(artifact)
