"""Runs that share a folder do on the dense network once what all need, with the same figures."""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.progress import SilentWatcher, Steps
from vqzoo.report.measured import AgreementRecord
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.storage.shared import SharedFolder
from vqzoo.storage.store import Store


class Heard(SilentWatcher):
    """Remembers what goes over images."""

    def __init__(self) -> None:
        self.passes: list[str] = []

    def images(self, text: str) -> AbstractContextManager[Steps]:
        self.passes.append(text)
        return super().images(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(5)
    for index in range(6):
        pixels = random.integers(256, size=(170, 180, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def agreement_of(
    data: Path, folder: Path, shared: SharedFolder | None, **fields: Any
) -> tuple[AgreementRecord, list[str]]:
    recipe = make_recipe(
        {"model": "test_resnet", "weights": "random", "method": "km", "options": {"k": 4},
         "layers": ["fc"], "data": f"imagefolder:{data}", **fields}
    )  # fmt: skip
    heard = Heard()
    record = run(recipe, heard, out=folder, shared=shared).record
    assert record.agreement is not None
    return record.agreement, heard.passes


def test_answers_to_images_without_labels_are_computed_once(images: Path, tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/store")
    here, there = SharedFolder(tmp_path / "here", store), SharedFolder(tmp_path / "there", store)
    plain, _ = agreement_of(images, tmp_path / "plain", None)
    first, passes = agreement_of(images, tmp_path / "first", here)
    assert passes == ["asking the dense model", "comparing with the dense model"]
    second, passes = agreement_of(images, tmp_path / "second", here)
    assert passes == ["comparing with the dense model"]
    third, passes = agreement_of(images, tmp_path / "third", there)  # another machine
    assert passes == ["comparing with the dense model"]
    assert plain == first == second == third
    _, passes = agreement_of(images, tmp_path / "fewer", here, images=5)
    assert passes[0] == "asking the dense model"


def test_images_are_known_by_what_they_are(images: Path, tmp_path: Path) -> None:
    """Not by their path, which may stay while they change, nor by their times."""
    shared, data = SharedFolder(tmp_path / "shared"), tmp_path / "here" / "images"
    shutil.copytree(images, data)
    first, _ = agreement_of(data, tmp_path / "first", shared)
    for image in data.iterdir():
        os.utime(image, (0, 0))
    moved = data.rename(tmp_path / "photographs")
    again, passes = agreement_of(moved, tmp_path / "again", shared)
    assert passes == ["comparing with the dense model"]
    assert again.model_copy(update={"data": first.data}) == first
    image = moved / "3.png"
    before = image.stat()
    pixels = np.asarray(Image.open(image))
    Image.fromarray(pixels[::-1].copy()).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed, passes = agreement_of(moved, tmp_path / "changed", shared)
    assert passes == ["asking the dense model", "comparing with the dense model"]
    assert changed != first


def test_accuracy_is_measured_anew_where_labels_change(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    for index in range(6):
        folder = tmp_path / "images" / f"{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(256, size=(28, 28)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    for name in range(3, 10):  # as many folders as the network has classes
        (tmp_path / "images" / f"{name}").mkdir()
    recipe = make_recipe(
        {"model": "mobilenet_mini.fmnist", "method": "km", "layers": ["classifier"],
         "data": f"imagefolder:{tmp_path / 'images'}"}
    )  # fmt: skip
    shared, passes = SharedFolder(tmp_path / "shared"), []
    for name in ("first", "same", "other"):
        if name == "other":
            shutil.move(tmp_path / "images/0/0.png", tmp_path / "images/7/0.png")
            shutil.move(tmp_path / "images/2/5.png", tmp_path / "images/8/5.png")
        heard = Heard()
        record = run(recipe, heard, out=tmp_path / name, shared=shared).record
        assert record.accuracy is not None
        passes.append("evaluating the dense model" in heard.passes)
    assert passes == [True, False, True]


def test_inputs_of_layers_are_gathered_once(tmp_path: Path) -> None:
    """Methods without second-order statistics get a sample of them; a store gets none."""
    shared = SharedFolder(tmp_path / "shared", Store(f"file://{tmp_path}/store"))
    recipe = {"model": "vit_mini.fmnist", "layers": ["head", "blocks.0.mlp.fc1"], "images": 20,
              "calibrate": "fmnist", "calibration_images": 24}  # fmt: skip
    passes = []
    for name, method, where in (
        ("plain", "svd", None),
        ("first", "svd", shared),
        ("second", "svd", shared),
        ("other", "prune", shared),
        ("damaged", "svd", shared),
    ):
        if name == "damaged":
            (file,) = (tmp_path / "shared/inputs").iterdir()
            good = file.read_bytes()
            file.write_bytes(good[:-1])
        heard = Heard()
        run(make_recipe({**recipe, "method": method}), heard, out=tmp_path / name, shared=where)
        passes.append(sum(text.startswith("calibrating") for text in heard.passes))
    assert passes == [1, 1, 0, 0, 1]
    assert file.read_bytes() == good
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["dense"]
    weights = [tmp_path / name / WEIGHTS_FILE for name in ("plain", "first", "second", "damaged")]
    assert len({path.read_bytes() for path in weights}) == 1


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_damaged_answers_are_computed_anew(damage: str, images: Path, tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path / "shared")
    first, _ = agreement_of(images, tmp_path / "first", shared)
    (file,) = (tmp_path / "shared/answers").iterdir()
    good = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(good[:-3])
    else:
        save_file({"logits": np.zeros((5, 1000), np.float32)}, file)
    second, passes = agreement_of(images, tmp_path / "second", shared)
    assert passes[0] == "asking the dense model"
    assert second == first
    assert file.read_bytes() == good
