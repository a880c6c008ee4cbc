"""An artifact for strangers to change, and a limit on memory."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from forging import Forgery, take_apart
from torch import Tensor

import vqzoo

GIB = 1 << 30


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """Limit the memory, so that an allocation that would fill it fails at once."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * GIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact of one layer, with a tail and row scales."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    folder = tmp_path_factory.mktemp("hostile") / "whole"
    vqzoo.compress(model, "pq", layers="dense", k=12, d=5, scale="row").save(folder)
    return folder


@pytest.fixture(scope="module")
def original(whole: Path) -> dict[str, Tensor]:
    return vqzoo.load(whole).state_dict()


@pytest.fixture
def forged(whole: Path) -> Forgery:
    return take_apart(whole)
