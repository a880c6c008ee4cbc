"""A folder of files that runs share, on one machine or through a store."""

from dataclasses import dataclass
from pathlib import Path

from vqzoo.storage.store import Store


@dataclass(frozen=True)
class SharedFolder:
    """A folder whose files runs look for before they compute them.

    Attributes:
        folder: on this machine, or on a network's file system.
        store: where machines without a common file system find each other's files; None for
            nowhere.
    """

    folder: Path
    store: Store | None = None

    def find(self, name: str, most_bytes: int) -> Path:
        """Where a file is, or would be. Of folder and store, each gets what only the other has.

        Raises:
            VqzooError: the store cannot be used, or its file is larger than `most_bytes`.
        """
        path = self.folder / name
        if self.store is None:
            return path
        if not path.exists():
            self.store.fetch(name, path, most_bytes)
        elif not self.store.has(name):
            self.publish(name)
        return path

    def publish(self, name: str) -> None:
        """Put a file of the folder into the store.

        Raises:
            VqzooError: the store cannot be written.
        """
        if self.store is not None:
            self.store.put(self.folder / name, name)
