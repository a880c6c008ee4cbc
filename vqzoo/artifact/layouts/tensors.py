"""Read tensors of a weights file, whatever its layout."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from vqzoo.artifact.dtypes import BY_STORED_NAME, torch_dtype
from vqzoo.artifact.header import Header
from vqzoo.artifact.reader import Artifact
from vqzoo.errors import ArtifactError


@dataclass(frozen=True)
class TensorFile:
    """An open weights file, and its header."""

    file: BinaryIO
    header: Header

    def tensor(self, key: str) -> Tensor:
        """Read one tensor into memory of its own.

        Raises:
            ArtifactError: the file ends before it.
        """
        stored = self.header.tensors[key]
        dtype = torch_dtype(BY_STORED_NAME[stored.dtype].name)
        if stored.value is not None:
            return torch.full(stored.shape, stored.value, dtype=dtype)
        if not stored.nbytes:
            return torch.empty(stored.shape, dtype=dtype)
        buffer = bytearray(stored.nbytes)
        self.file.seek(stored.begin)
        if self.file.readinto(buffer) != stored.nbytes:  # type: ignore[attr-defined]
            raise ArtifactError(f"the weights file ends before tensor {key!r:.200} does")
        return torch.frombuffer(buffer, dtype=dtype).reshape(stored.shape)

    def tensors(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """Read several tensors, by key."""
        return {key: self.tensor(key) for key in keys}


@contextmanager
def open_tensors(artifact: Artifact) -> Iterator[TensorFile]:
    """Open the weights file of an artifact.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        with artifact.weights_path.open("rb") as file:
            yield TensorFile(file, artifact.header)
    except OSError as error:
        raise ArtifactError(f"{artifact.weights_path} cannot be read: {error.strerror}") from None
