"""Images to train with, and those held out of them."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vqzoo
from vqzoo.data import fmnist
from vqzoo.data.batches import Batch
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.training_data import TrainingData, open_training_data
from vqzoo.errors import UsageError, VqzooError


def mini() -> nn.Module:
    vqzoo.register_models()
    return timm.create_model("alexnet_mini").eval()


def epoch(data: TrainingData, seed: int = 0, number: int = 0) -> list[Batch]:
    return list(data.batches(epoch_generator(seed, number)))


def test_the_embedded_images_are_cut_into_4000_and_1000() -> None:
    data = open_training_data("fmnist", mini(), batch_size=500, augment=False)
    embedded = fmnist.train_subset()
    assert data.images == 4000
    assert data.validation is not None
    held_out = torch.cat([batch.labels for batch in data.validation])
    assert torch.equal(held_out, embedded.labels[4000:])
    labels = torch.cat([batch.labels for batch in epoch(data)])
    assert not torch.equal(labels, embedded.labels[:4000])
    assert torch.equal(labels.bincount(), embedded.labels[:4000].bincount())


def test_the_full_split_leaves_the_embedded_images_to_validation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = torch.arange(10).repeat(600)
    images = torch.arange(6000)[:, None, None, None].expand(-1, 1, 28, 28)
    split = fmnist.LabelledImages((images % 251).byte(), labels)
    monkeypatch.setattr(fmnist, "train_split", lambda folder: split)
    data = open_training_data(f"fmnist:{tmp_path}", mini(), batch_size=1000)
    assert data.images == 1000
    assert data.validation is not None
    assert data.validation.images == 5000
    assert tmp_path.name not in data.name


def test_order_and_augmentation_follow_seed_and_epoch() -> None:
    data = open_training_data("fmnist", mini(), images=20, batch_size=20)
    (one,), (again,), (later,), (other,) = (
        epoch(data), epoch(data), epoch(data, number=1), epoch(data, seed=1),
    )  # fmt: skip
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, later.images)
    assert not torch.equal(one.images, other.images)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("augment", [True, False])
def test_a_folder_holds_out_a_share_of_each_class(folder: Path, augment: bool) -> None:
    model = timm.create_model("test_vit", num_classes=2).eval()
    data = open_training_data(f"imagefolder:{folder}", model, batch_size=7, augment=augment)
    assert data.validation is not None
    assert (data.images, data.validation.images, data.labelled) == (22, 2, True)
    assert torch.cat([b.labels for b in data.validation]).tolist() == [0, 1]
    batches = epoch(data)
    assert [len(batch.images) for batch in batches] == [7, 7, 7, 1]
    assert torch.cat([b.labels for b in batches]).bincount().tolist() == [11, 11]
    assert all(torch.equal(a.images, b.images) for a, b in zip(batches, epoch(data), strict=True))
    other = open_training_data(
        f"imagefolder:{folder}", model, batch_size=7, augment=augment, seed=1
    )
    assert other.validation is not None
    first, second = (next(iter(d.validation)).images for d in (data, other))
    assert not torch.equal(first, second)


def test_a_folder_without_labels(folder: Path) -> None:
    model = timm.create_model("test_vit", num_classes=7).eval()
    data = open_training_data(f"imagefolder:{folder}", model, images=5)
    assert (data.images, data.labelled) == (5, False)
    assert epoch(data)[0].labels is None


def test_images_alone_in_their_folders_are_learned_from_too(folder: Path) -> None:
    for i in range(11):
        (folder / f"rare{i}").mkdir()
        (folder / "cat" / f"{i}.png").rename(folder / f"rare{i}" / "one.png")
    model = timm.create_model("test_vit", num_classes=13).eval()
    data = open_training_data(f"imagefolder:{folder}", model, batch_size=30)
    assert data.validation is not None
    # Two of twelve (the last cat is alone now), and one dog.
    assert (data.images, data.validation.images) == (21, 3)
    classes = torch.cat([b.labels for b in [*epoch(data), *data.validation]])
    assert classes.bincount(minlength=13).tolist() == [1, 12, *[1] * 11]


def test_data_that_cannot_be_learned_from_is_refused(folder: Path) -> None:
    model = timm.create_model("test_vit", num_classes=2).eval()
    for spec in ("nothing", "fmnist"):
        with pytest.raises(UsageError):
            open_training_data(spec, model)
    (folder.parent / "alone").mkdir()
    Image.new("RGB", (8, 8)).save(folder.parent / "alone" / "one.png")
    with pytest.raises(VqzooError, match="too few images"):
        open_training_data(f"imagefolder:{folder.parent / 'alone'}", model)
