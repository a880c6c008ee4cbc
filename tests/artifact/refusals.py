"""Checks that an artifact loads to exactly its network, or is refused in one line."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vqzoo
from vqzoo.errors import ArtifactError


def refused(folder: Path) -> str:
    """Load an artifact that must be refused, and return the one line that says why."""
    with pytest.raises(ArtifactError) as caught:
        vqzoo.load(folder)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 1000
    return text


def state_or_reason(folder: Path) -> dict[str, Tensor] | str:
    """The state dict of the network, or the line that says why the artifact was refused."""
    try:
        return vqzoo.load(folder).state_dict()
    except ArtifactError as error:
        return str(error)


def refused_or_the_same(folder: Path, original: dict[str, Tensor]) -> bool:
    """Whether an artifact was refused; if not, check that it loads to exactly the original."""
    state = state_or_reason(folder)
    if isinstance(state, str):
        assert "\n" not in state
        return True
    assert state.keys() == original.keys()
    assert all(torch.equal(state[key], original[key]) for key in state)
    return False


def copy_of(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))
