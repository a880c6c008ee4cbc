"""Decoded images stay on disk, and networks see the same floats, bit for bit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vqzoo.data.calibration_data import open_calibration_data
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.kept_pixels import pixels_in
from vqzoo.errors import VqzooError

MODES = {"a.png": "RGB", "b.png": "L", "c.png": "RGBA", "d.png": "I;16", "e.jpg": "RGB"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    for folder in ("x", "y"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for index, (name, mode) in enumerate(MODES.items()):
            depth = {"L": (), "I;16": (), "RGB": (3,), "RGBA": (4,)}[mode]
            high, kind = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
            values = random.integers(high, size=(50 + index, 70 - index, *depth)).astype(kind)
            Image.fromarray(values).save(tmp_path / "images" / folder / name)
    return tmp_path / "images"


@pytest.fixture(params=["test_resnet", "grey"])
def network(request: pytest.FixtureRequest) -> Any:
    channels = {"in_chans": 1} if request.param == "grey" else {}
    return timm.create_model("test_resnet", num_classes=2, **channels)


def batches(network: Any, folder: Path, **options: Any) -> list[tuple[torch.Tensor, Any]]:
    data = open_data(f"imagefolder:{folder}", network, batch_size=4, **options)
    return [(batch.images, batch.labels) for batch in data]


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        a[0].numpy().tobytes() == b[0].numpy().tobytes() and torch.equal(a[1], b[1])
        for a, b in zip(first, second, strict=True)
    )


def test_kept_images_are_the_same_bits(network: Any, images: Path, tmp_path: Path) -> None:
    plain = batches(network, images)
    folder = tmp_path / "kept"
    with pixels_in(folder):
        assert same(batches(network, images), plain)
        (file,) = folder.iterdir()
        before = file.stat().st_mtime_ns
        assert same(batches(network, images), plain)
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert file.stat().st_mtime_ns > before  # used
    pixels = np.load(file, allow_pickle=False)
    assert pixels.dtype == np.uint8
    assert len(pixels) == 10


def test_images_are_decoded_once(
    network: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(image: Any) -> None:
        raise AssertionError(f"{image} is decoded again")

    with pixels_in(tmp_path / "kept"):
        first = batches(network, images)
        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", refuse)
            patch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", refuse)
            assert same(batches(network, images), first)
            # Another normalization needs the same pixels.
            config = network.pretrained_cfg
            network.pretrained_cfg = {**config, "mean": (0.1,) * 3, "std": (0.7,) * 3}
            shifted = batches(network, images)
    assert not same(shifted, first)
    assert same(shifted, batches(network, images))


def test_other_images_and_other_files_are_decoded_anew(
    network: Any, images: Path, tmp_path: Path
) -> None:
    with pixels_in(tmp_path / "kept"):
        first = batches(network, images)
        assert len(batches(network, images, images=4)) == 1
        changed = images / "x/a.png"
        stat = changed.stat()
        Image.new("RGB", (70, 50), (9, 8, 7)).save(changed)
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its time does not tell
        second = batches(network, images)
        assert not same(first, second)
    assert same(second, batches(network, images))
    assert len(list((tmp_path / "kept").iterdir())) == 3


@pytest.mark.parametrize("damage", ["truncated", "other", "pickle", "empty"])
def test_damaged_files_are_made_anew(
    damage: str, network: Any, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    with pixels_in(folder):
        first = batches(network, images)
        (file,) = folder.iterdir()
        good = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(good[:-1])
        elif damage == "other":
            np.save(file, np.zeros((10, 1, 2, 2), np.uint8))
        elif damage == "pickle":
            np.save(file, np.array([print], dtype=object), allow_pickle=True)
        else:
            file.write_bytes(b"")
        assert same(batches(network, images), first)
        assert file.read_bytes() == good


def test_a_pass_that_ends_early_keeps_nothing(network: Any, images: Path, tmp_path: Path) -> None:
    with pixels_in(tmp_path / "kept"):
        passing = iter(open_data(f"imagefolder:{images}", network, batch_size=4))
        next(passing)
        del passing
        assert list((tmp_path / "kept").iterdir()) == []
        (images / "y/e.jpg").write_bytes(b"no image")
        with pytest.raises(VqzooError, match=r"e\.jpg cannot be read"):
            batches(network, images)
        assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_that_cannot_be_written_keeps_nothing(
    network: Any, images: Path, tmp_path: Path
) -> None:
    plain = batches(network, images)
    (tmp_path / "file").write_text("in the way")
    with pixels_in(tmp_path / "file"):
        assert same(batches(network, images), plain)


def test_all_files_together_are_bounded(
    network: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    with pixels_in(folder):
        batches(network, images, images=4)
        (oldest,) = folder.iterdir()
        monkeypatch.setattr("vqzoo.data.kept_pixels.KEPT_BYTES", 2 * oldest.stat().st_size)
        batches(network, images, images=3)
        batches(network, images, images=2)
        assert oldest not in folder.iterdir()
        assert len(list(folder.iterdir())) == 2
        batches(network, images)  # more than the bound
        assert len(list(folder.iterdir())) == 2


def test_calibration_images_are_kept_too(network: Any, images: Path, tmp_path: Path) -> None:
    def calibration(seed: int) -> list[torch.Tensor]:
        data = open_calibration_data(f"imagefolder:{images}", network, images=6, seed=seed)
        return [batch.images for batch in data]

    plain = [calibration(seed) for seed in (0, 1)]
    with pixels_in(tmp_path / "kept"):
        for _ in range(2):
            kept = [calibration(seed) for seed in (0, 1)]
            for expected, images_of_seed in zip(plain, kept, strict=True):
                assert torch.equal(torch.cat(expected), torch.cat(images_of_seed))
    assert len(list((tmp_path / "kept").iterdir())) == 2
