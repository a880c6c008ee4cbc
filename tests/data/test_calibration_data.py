"""Images to calibrate with: which are taken, in what order, and how often they are decoded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vqzoo
from vqzoo.data import fmnist, sources
from vqzoo.data.batches import Batch, Data
from vqzoo.data.calibration_data import (
    collect_calibration_data,
    open_calibration_data,
    open_held_out,
)
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.kept_batches import KeptBatches
from vqzoo.data.seeds import epoch_generator
from vqzoo.errors import UsageError


def mini() -> nn.Module:
    vqzoo.register_models()
    return timm.create_model("alexnet_mini").eval()


def images_of(data: Data) -> Tensor:
    return torch.cat([batch.images for batch in data])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """100 images of 2 classes, each of one grey level of its own."""
    for i in range(100):
        path = tmp_path / "pictures" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 48, 3), 2 * i, np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every image file that is decoded, each time."""
    files: list[object] = []
    decode = Image.open

    def counted(file: object) -> Image.Image:
        files.append(file)
        return decode(file)  # type: ignore[arg-type]

    monkeypatch.setattr(sources.Image, "open", counted)
    return files


def test_fmnist_gives_the_first_embedded_images_in_a_drawn_order() -> None:
    data = open_calibration_data("fmnist", mini(), images=100, seed=3)
    assert (data.name, data.images) == ("fmnist, 100 training images", 100)
    order = torch.randperm(100, generator=epoch_generator(3, 0))
    pixels = fmnist.train_subset().images[:100][order]
    assert [len(batch.images) for batch in data] == [64, 36]
    torch.testing.assert_close(images_of(data), (pixels / 255 - 0.2860) / 0.3530)
    assert not torch.equal(images_of(data), images_of(open_calibration_data(
        "fmnist", mini(), images=100, seed=4)))  # fmt: skip


def test_nothing_is_held_out(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    embedded = fmnist.train_subset()
    assert open_calibration_data("fmnist", mini(), images=10_000).images == len(embedded)
    monkeypatch.setattr(fmnist, "train_split", lambda folder: fmnist.LabelledImages(*embedded[:9]))
    assert open_calibration_data(f"fmnist:{folder}", mini()).images == 9
    model = timm.create_model("test_vit", num_classes=2).eval()
    data = open_calibration_data(f"imagefolder:{folder}", model)
    assert (data.name, data.images) == ("imagefolder:pictures", 100)
    everything = images_of(open_data(f"imagefolder:{folder}", model))
    levels = [images.mean((1, 2, 3)) for images in (images_of(data), everything)]
    assert torch.equal(*(level.sort().values for level in levels))
    assert not torch.equal(*levels)


def test_images_are_decoded_once(folder: Path, decoded: list[object]) -> None:
    model = timm.create_model("test_vit", num_classes=2).eval()
    data = open_calibration_data(f"imagefolder:{folder}", model, images=80)
    first = images_of(data)
    assert len(decoded) == 80
    assert torch.equal(images_of(data), first)
    assert len(decoded) == 80


def test_images_beyond_the_bound_are_decoded_in_every_pass(
    folder: Path, decoded: list[object]
) -> None:
    model = timm.create_model("test_vit", num_classes=2).eval()
    size = 3 * 160 * 160 * 4
    data = open_calibration_data(f"imagefolder:{folder}", model, memory=70 * size)
    first = images_of(data)
    assert len(decoded) == 100
    assert torch.equal(images_of(data), first)
    assert len(decoded) == 100 + 36


def test_a_pass_that_ends_early_and_one_beside_it_change_nothing() -> None:
    prepared: list[int] = []

    def prepare(position: int) -> Iterator[Batch]:
        for i in range(position, 5):
            prepared.append(i)
            yield Batch(torch.full((2, 3), float(i)), None)

    batches = KeptBatches(prepare)
    started = batches()
    next(started)
    for _ in range(2):
        assert [float(batch.images[0, 0]) for batch in batches()] == [0, 1, 2, 3, 4]
    assert [float(batch.images[0, 0]) for batch in started] == [1, 2, 3, 4]
    assert prepared.count(0) == 1


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_a_network_that_works_in_place_changes_no_other_pass(memory: int) -> None:
    data = open_calibration_data("fmnist", mini(), images=10, memory=memory)
    first = images_of(data)
    for batch in data:
        batch.images.zero_()
    assert torch.equal(images_of(data), first)


def test_given_batches_are_read_once_and_cut() -> None:
    images = torch.randn(30, 3, 4, 4)
    labels = torch.arange(30)
    loader = DataLoader(list(zip(images, labels, strict=True)), batch_size=8, shuffle=True)
    data = collect_calibration_data(loader, 20)
    assert data.images == 20
    first = images_of(data)
    assert [len(batch.images) for batch in data] == [8, 8, 4]
    for batch in data:
        batch.images.zero_()
    assert torch.equal(images_of(data), first)
    once = collect_calibration_data(iter([images]), 100)
    assert torch.equal(images_of(once), images)
    assert once.images == 30


def test_data_without_images_or_without_an_order_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="no images to calibrate"):
        collect_calibration_data([])
    with pytest.raises(UsageError, match="unknown data 'nothing'"):
        open_calibration_data("nothing", mini())
    with pytest.raises(UsageError, match="10 classes, the model 7"):
        open_calibration_data("fmnist", timm.create_model("alexnet_mini", num_classes=7))
    stream = timm.data.IterableImageDataset(None, reader=[])
    monkeypatch.setattr(sources, "create_dataset", lambda *a, **k: stream)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UsageError, match="is a stream and cannot be shuffled"):
        open_calibration_data("wds/any", timm.create_model("test_vit"))


@pytest.mark.parametrize(
    ("images", "held_out", "parts"), [(20, 30, (20, 30)), (90, 30, (75, 25)), (512, 5, (95, 5))]
)
def test_images_held_out_are_others(
    folder: Path, images: int, held_out: int, parts: tuple[int, int]
) -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    spec = f"imagefolder:{folder}"
    calibration, judging = open_held_out(spec, model, images=images, held_out=held_out, seed=3)
    assert (calibration.images, judging.images) == parts
    greys = [set(images_of(data)[:, 0, 0, 0].tolist()) for data in (calibration, judging)]
    assert tuple(map(len, greys)) == parts
    assert not greys[0] & greys[1]
    plain = open_calibration_data(spec, model, images=parts[0], seed=3)
    assert torch.equal(images_of(plain), images_of(calibration))
    for batch in judging:
        assert batch.labels is not None
        assert batch.labels.unique().tolist() == [0, 1]


def test_embedded_images_held_out_follow_those_for_calibration() -> None:
    calibration, judging = open_held_out("fmnist", mini(), images=30, held_out=40)
    labels = fmnist.train_subset().labels
    held = torch.cat([batch.labels for batch in judging])
    assert sorted(held.tolist()) == sorted(labels[30:70].tolist())
    both = torch.cat([images_of(calibration), images_of(judging)])
    assert len(both.flatten(1).unique(dim=0)) == 70


def test_too_few_images_to_hold_some_out(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png"))[3:]:
        path.unlink()
    with pytest.raises(UsageError, match="3 calibration images are too few to hold some out"):
        open_held_out(f"imagefolder:{folder}", timm.create_model("test_resnet"), held_out=9)
