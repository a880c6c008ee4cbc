"""Teacher and student see the same crops of the same images, each in its own preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vqzoo.data.sources import READ_ALL
from vqzoo.distillation.distill import open_lessons
from vqzoo.distillation.settings import Distillation


def network(size: int, **cfg: object) -> nn.Module:
    model = timm.create_model("test_resnet", num_classes=3, in_chans=cfg.pop("in_chans", 3))
    model.pretrained_cfg = {
        **model.pretrained_cfg, "input_size": (3, size, size), "interpolation": "bilinear",
        "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, **cfg,
    }  # fmt: skip
    return model.eval()


@pytest.fixture
def gradients(tmp_path: Path) -> str:
    """Smooth pictures, whose crops look alike at any resolution."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 96)
    for i in range(20):
        slopes = rng.random((3, 2))
        pixels = [a * x[:, None] + b * x[None, :] for a, b in slopes]
        scaled = np.stack(pixels, axis=2) * 127
        Image.fromarray(scaled.astype(np.uint8)).save(tmp_path / f"{i}.png")
    return f"imagefolder:{tmp_path}"


SETTINGS = Distillation(batch_size=8)


def test_the_views_are_the_same_crops(gradients: str) -> None:
    student, teacher = network(32), network(64, mean=(0.5,) * 3, std=(0.25,) * 3)
    lessons = open_lessons(gradients, student, teacher, SETTINGS, 0, READ_ALL)
    views = [(batch.images, view) for batch, view in lessons.batches(0, 1)]
    assert [len(images) for images, _ in views] == [8, 8, 2]
    for images, view in views:
        assert view.shape == (len(images), 3, 64, 64)
        seen = F.avg_pool2d(view * 0.25 + 0.5, 2)
        assert (images - seen).abs().max() < 0.02
        assert images.std(dim=0).max() > 0.05  # other pictures, other crops
    again = [batch.images for batch, _ in lessons.batches(0, 1)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(again, views, strict=True))
    held_out = lessons.data.validation, lessons.views.validation
    for batch, view in zip(*held_out, strict=True):
        assert (batch.images - F.avg_pool2d(view.images * 0.25 + 0.5, 2)).abs().max() < 0.02


def test_one_preprocessing_is_done_once(gradients: str) -> None:
    student, teacher = network(32), network(32)
    lessons = open_lessons(gradients, student, teacher, SETTINGS, 0, READ_ALL)
    assert lessons.views is None
    assert all(view is batch.images for batch, view in lessons.batches(0, 1))


def test_shifts_and_mirroring_of_small_images_are_the_same() -> None:
    student = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    grey = {"crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.0,), "std": (1.0,)}
    student.pretrained_cfg = {**student.pretrained_cfg, **grey, "input_size": (1, 28, 28)}
    teacher = network(28)
    teacher.num_classes = 10
    settings = Distillation(batch_size=16, images=32)
    lessons = open_lessons("fmnist", student, teacher, settings, 0, READ_ALL)
    for batch, view in lessons.batches(0, 0):
        assert view.shape[1:] == (3, 28, 28)
        assert torch.allclose(view, batch.images.expand(-1, 3, -1, -1), atol=1e-6)
