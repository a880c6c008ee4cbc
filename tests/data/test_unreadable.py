"""Images that cannot be read: refused by name, or left out and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vqzoo
from vqzoo.data import sources
from vqzoo.data.calibration_data import open_calibration_data
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.sources import ReadOptions
from vqzoo.data.training_data import open_training_data
from vqzoo.errors import UnreadableImagesWarning, UsageError, VqzooError

SKIP = ReadOptions(skip_unreadable=True)
LOST = ("cat/1.png", "cat/4.png", "dog/deeper/2.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 12 images; one is no image, one is cut short, one has pixels out of range."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for label in ("cat", "dog"):
        (root / label / "deeper").mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    (root / "cat" / "1.png").write_bytes(b"no image")
    Image.fromarray(np.full((40, 40), -1, np.int32)).save(root / "cat" / "4.png", format="TIFF")
    (root / "dog" / "2.png").unlink()
    Image.fromarray(pixels).save(root / "dog" / "deeper" / "2.jpg")
    whole = (root / "dog" / "deeper" / "2.jpg").read_bytes()
    (root / "dog" / "deeper" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture
def model() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=2).eval()


def test_the_first_one_is_refused_by_name(folder: Path, model: nn.Module) -> None:
    with pytest.raises(VqzooError, match=r"cat/1.png cannot be read: not an image"):
        vqzoo.evaluate(model, f"imagefolder:{folder}")


def test_they_are_left_out_and_named(folder: Path, model: nn.Module) -> None:
    with pytest.warns(UnreadableImagesWarning, match="3 images of 24") as caught:
        result = vqzoo.evaluate(model, f"imagefolder:{folder}", skip_unreadable=True)
    assert (result.images, result.unreadable) == (21, LOST)
    assert all(name in str(caught[0].message) for name in LOST)
    assert str(folder.parent) not in str(caught[0].message)
    for name in LOST:
        (folder / name).unlink()
    plain = vqzoo.evaluate(model, f"imagefolder:{folder}")
    assert torch.equal(plain.correct, result.correct)


def test_calibration_and_training_leave_them_out(folder: Path, model: nn.Module) -> None:
    spec = f"imagefolder:{folder}"
    with pytest.warns(UnreadableImagesWarning):
        calibration = open_calibration_data(spec, model, skip_unreadable=True)
    assert (calibration.images, calibration.unreadable) == (21, LOST)
    assert sum(len(batch.images) for batch in calibration) == 21
    with pytest.warns(UnreadableImagesWarning):
        training = open_training_data(spec, model, read=SKIP)
    assert training.validation is not None
    assert (training.images or 0) + (training.validation.images or 0) == 21
    assert training.unreadable == LOST
    batches = list(training.batches(torch.Generator()))
    assert sum(len(batch.images) for batch in batches) == training.images
    with pytest.warns(UnreadableImagesWarning):
        small = vqzoo.compress(model, "km", layers="fc", k=4, calibrate=spec, skip_unreadable=True)
    assert small.layers


def test_of_many_the_first_are_named(tmp_path: Path, model: nn.Module) -> None:
    for i in range(30):
        (tmp_path / f"{i:02}.png").write_bytes(b"no image")
    with pytest.raises(VqzooError, match="none of 30 images can be read"):
        open_data(f"imagefolder:{tmp_path}", model, read=SKIP)
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    with pytest.warns(UnreadableImagesWarning, match=r"30 images of 31.* 19.png and 10 more"):
        data = open_data(f"imagefolder:{tmp_path}", model, read=SKIP)
    assert len(data.unreadable) == 30


def test_a_data_set_of_timms_readers(
    folder: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dog" / "deeper" / "2.jpg").rename(folder / "dog" / "2.jpg")
    dataset = timm.data.ImageDataset(folder)
    monkeypatch.setattr(sources, "create_dataset", lambda *a, **k: dataset)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: name)
    with pytest.warns(UnreadableImagesWarning):
        data = open_data("hfds/any", model, read=SKIP)
    assert (data.images, data.labelled, len(data.unreadable)) == (21, True, 3)
    assert all(name.startswith("image ") for name in data.unreadable)
    stream = timm.data.IterableImageDataset(None, reader=[])
    monkeypatch.setattr(sources, "create_dataset", lambda *a, **k: stream)
    with pytest.raises(UsageError, match="cannot be skipped"):
        open_data("wds/any", model, read=SKIP)
