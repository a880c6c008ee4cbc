"""Data for evaluation: the embedded split, folders of images, timm's data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import vqzoo
from vqzoo.data import fmnist
from vqzoo.data import sources as image_sources
from vqzoo.data.evaluation_data import Data, open_data, spaced_positions
from vqzoo.errors import UsageError, VqzooError

SYNSETS = ("n01440764", "n01443537", "n02102040")


class Wanting(nn.Module):
    """What data needs to know of a model, and nothing else."""

    def __init__(self, num_classes: int, size: int = 8, channels: int = 3, **cfg: object) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pretrained_cfg = {
            "input_size": (channels, size, size),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5,) * channels,
            "std": (0.25,) * channels,
            **cfg,
        }


@pytest.fixture(scope="module")
def mini() -> nn.Module:
    vqzoo.register_models()
    return timm.create_model("alexnet_mini")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**counts: int) -> Path:
        """A root with a folder a keyword, its images of grey level 10 times the folder's place."""
        root = tmp_path / "pictures"
        root.mkdir(exist_ok=True)
        for place, (name, count) in enumerate(counts.items()):
            (root / name).mkdir()
            for i in range(count):
                grey(10 * place).save(root / name / f"{i}.png")
        return root

    return make


def grey(level: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), level, np.uint8))


def all_of(data: Data) -> tuple[Tensor, Tensor | None]:
    batches = list(data)
    labels = [batch.labels for batch in batches if batch.labels is not None]
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.float32
    assert not labels or len(labels) == len(batches)
    return images, torch.cat(labels) if labels else None


def test_fmnist_is_the_test_split_normalized(mini: nn.Module) -> None:
    data = open_data("fmnist", mini)
    images, labels = all_of(data)
    split = fmnist.test_split()
    expected = (split.images.numpy() / 255 - 0.2860) / 0.3530
    assert (data.name, data.images, data.labelled, data.num_classes) == ("fmnist", 10000, True, 10)
    assert labels is not None
    assert torch.equal(labels, split.labels)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)


def test_fmnists_short_way_gives_what_timms_transform_gives(mini: nn.Module) -> None:
    data = open_data("fmnist", mini, images=300)
    config = timm.data.resolve_model_data_config(mini)
    transform = timm.data.create_transform(**config, is_training=False)
    split = fmnist.test_split()
    chosen = [i * 10_000 // 300 for i in range(300)]
    expected = [transform(Image.fromarray(split.images[i, 0].numpy())) for i in chosen]
    images, labels = all_of(data)
    assert torch.equal(images, torch.stack(expected))
    assert labels is not None
    assert torch.equal(labels, split.labels[chosen])


def test_fmnist_for_a_model_of_another_input() -> None:
    model = Wanting(10, size=12)
    images, labels = all_of(open_data("fmnist", model, images=20, batch_size=7))
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    first = Image.fromarray(fmnist.test_split().images[0, 0].numpy()).convert("RGB")
    assert images.shape == (20, 3, 12, 12)
    assert torch.equal(images[0], transform(first))
    assert labels is not None
    assert len(labels) == 20


def test_iterating_again_gives_the_same(mini: nn.Module, make_folder: Callable[..., Path]) -> None:
    for data in (
        open_data("fmnist", mini, images=50, batch_size=20),
        open_data(f"imagefolder:{make_folder(a=5, b=4)}", Wanting(2), batch_size=2),
    ):
        first, second = list(data), list(data)
        assert [len(batch.images) for batch in first] == [len(batch.images) for batch in second]
        assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))


@given(st.integers(1, 200), st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_spaced_positions(total: int, images: int) -> None:
    chosen = spaced_positions(total, images)
    assert len(chosen) == min(total, images)
    assert chosen[0] == 0
    gaps = np.diff([*chosen, total])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_class_folders_in_natural_order(make_folder: Callable[..., Path], threads: int) -> None:
    root = make_folder(class2=2, class10=3, class1=1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        data = open_data(f"imagefolder:{root}", Wanting(3), batch_size=4)
        images, labels = all_of(data)
    finally:
        torch.set_num_threads(before)
    assert (data.name, data.images, data.num_classes) == ("imagefolder:pictures", 6, 3)
    assert labels is not None
    assert labels.tolist() == [0, 1, 1, 2, 2, 2]
    levels = torch.tensor([20, 0, 0, 10, 10, 10])
    assert torch.allclose(images.mean((1, 2, 3)), (levels / 255 - 0.5) / 0.25)


def test_a_subset_of_imagenets_synsets_is_mapped_by_name(make_folder: Callable[..., Path]) -> None:
    root = make_folder(**dict.fromkeys(SYNSETS, 1))
    _, labels = all_of(open_data(f"imagefolder:{root}", Wanting(1000)))
    assert labels is not None
    names = timm.data.ImageNetInfo().label_names()
    assert [names[label] for label in labels] == list(SYNSETS)


def test_the_models_own_label_names_come_before_the_order(make_folder: Callable[..., Path]) -> None:
    model = Wanting(3, label_names=("zebra", "ape", "cat"))
    _, labels = all_of(open_data(f"imagefolder:{make_folder(ape=1, cat=1, zebra=1)}", model))
    assert labels is not None
    assert labels.tolist() == [1, 2, 0]


def test_an_empty_class_folder_keeps_its_place(make_folder: Callable[..., Path]) -> None:
    _, labels = all_of(open_data(f"imagefolder:{make_folder(a=1, b=0, c=1)}", Wanting(3)))
    assert labels is not None
    assert labels.tolist() == [0, 2]


def test_a_subset_of_a_sorted_folder_has_every_class(make_folder: Callable[..., Path]) -> None:
    root = make_folder(a=10, b=10, c=10)
    data = open_data(f"imagefolder:{root}", Wanting(3), images=6)
    _, labels = all_of(data)
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.images == 6


@pytest.mark.parametrize(
    ("folders", "loose", "says"),
    [
        ({}, 3, "no class folders"),
        ({"a": 1, "b": 2}, 1, "outside the class folders"),
        ({"a": 1, "b": 2}, 0, "2 class folders, but the model has 3"),
        ({SYNSETS[0]: 1, "other": 1}, 0, "2 class folders"),
    ],
)
def test_other_folders_are_unlabelled(
    make_folder: Callable[..., Path], folders: dict[str, int], loose: int, says: str
) -> None:
    root = make_folder(**folders)
    for i in range(loose):
        grey(i).save(root / f"loose{i}.jpg")
    data = open_data(f"imagefolder:{root}", Wanting(3))
    images, labels = all_of(data)
    assert not data.labelled
    assert says in data.unlabelled
    assert labels is None
    assert len(images) == data.images == sum(folders.values()) + loose


def test_nested_and_hidden_files(make_folder: Callable[..., Path]) -> None:
    root = make_folder(a=1, b=1)
    (root / "a" / "deeper").mkdir()
    (root / ".cache").mkdir()
    for place in ("a/deeper/x.JPG", "a/.hidden.png", ".cache/x.png"):
        with (root / place).open("wb") as file:
            grey(1).save(file, "png")
    (root / "a" / "notes.txt").write_text("not an image")
    _, labels = all_of(open_data(f"imagefolder:{root}", Wanting(2)))
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no image at all", "not an image"), (None, "truncated")]
)
def test_an_unreadable_image_is_named(
    make_folder: Callable[..., Path], content: bytes | None, reason: str
) -> None:
    root = make_folder(a=3, b=3)
    victim = root / "b" / "1.png"
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(victim)
        content = victim.read_bytes()[:6000]
    victim.write_bytes(content)
    with pytest.raises(VqzooError, match=reason) as caught:
        list(open_data(f"imagefolder:{root}", Wanting(2), batch_size=2))
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path, says in [
        (tmp_path / "gone", "No such file"),
        (file, "Not a directory"),
        (tmp_path, "no images"),
    ]:
        with pytest.raises(VqzooError, match=says) as caught:
            open_data(f"imagefolder:{path}", Wanting(2))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("fmnist", {}, "10 classes, the model 1000"),
        ("fmnist", {"images": 0}, "at least 1"),
        ("fmnist", {"split": "train"}, "no splits"),
        ("imagefolder:.", {"split": "train"}, "no splits"),
        ("fminst", {}, "unknown data 'fminst'"),
        ("", {}, "unknown data"),
        ("ftp/thing", {}, "unknown data"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    spec: str, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        open_data(spec, Wanting(1000), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cfg", [{"mean": (0.1, 0.2)}, {"std": (0.1, 0.2, 0.3, 0.4)}])
def test_preprocessing_for_other_channels_is_refused(cfg: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="preprocessing is not known"):
        open_data("fmnist", Wanting(10, **cfg))
    with pytest.raises(UsageError, match="4 channels"):
        open_data("fmnist", Wanting(10, channels=4))


def test_timms_data_sets_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VqzooError, match="needs the package datasets: pip install datasets"):
        open_data("hfds/someone/something", Wanting(10))


def test_timms_data_sets_fail_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no way out\nand a long story")

    monkeypatch.setattr(image_sources, "create_dataset", refuse)
    with pytest.raises(
        VqzooError, match=r"torch/cifar10, split 'validation', .* and a long story$"
    ):
        open_data("torch/cifar10", Wanting(10))


class Listed:
    """A data set as torchvision makes them."""

    classes = ("a", "b", "c")

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return grey(index), self.labels[index]


def test_a_data_set_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def create(name: str, **kwargs: object) -> Listed:
        asked.update(kwargs, name=name)
        return Listed([0, 1, 2, 1])

    monkeypatch.setattr(image_sources, "create_dataset", create)
    data = open_data("torch/listed", Wanting(3), split="test", images=2)
    _, labels = all_of(data)
    assert (asked["name"], asked["split"]) == ("torch/listed", "test")
    assert labels is not None
    assert (data.name, data.images, labels.tolist()) == ("torch/listed", 2, [0, 2])
    with pytest.raises(UsageError, match="3 classes, the model 5"):
        open_data("torch/listed", Wanting(5))


def test_secret_labels_make_a_data_set_unlabelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "create_dataset", lambda *a, **k: Listed([-1, -1]))
    data = open_data("torch/listed", Wanting(3))
    assert not data.labelled
    assert all_of(data)[1] is None
    monkeypatch.setattr(image_sources, "create_dataset", lambda *a, **k: Listed([0, -1]))
    with pytest.raises(VqzooError, match="some have none"):
        list(open_data("torch/listed", Wanting(3)))


def test_timms_reader_does_not_hide_an_unreadable_image(
    monkeypatch: pytest.MonkeyPatch, make_folder: Callable[..., Path]
) -> None:
    root = make_folder(a=2, b=2)
    (root / "b" / "0.png").write_bytes(b"no image")
    dataset = timm.data.ImageDataset(root)
    monkeypatch.setattr(image_sources, "create_dataset", lambda *a, **k: dataset)
    monkeypatch.setattr(image_sources.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(VqzooError, match="hfds/any, image 2 cannot be read: not an image"):
        list(open_data("hfds/any", Wanting(2)))


def test_a_stream_gives_its_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = timm.data.IterableImageDataset(None, reader=[(grey(i), i % 3) for i in range(9)])
    monkeypatch.setattr(image_sources, "create_dataset", lambda *a, **k: stream)
    monkeypatch.setattr(image_sources.importlib.util, "find_spec", lambda name: name)
    data = open_data("wds/any", Wanting(3), images=5, batch_size=2)
    for _ in range(2):
        _, labels = all_of(data)
        assert labels is not None
        assert (data.images, labels.tolist()) == (None, [0, 1, 2, 0, 1])
