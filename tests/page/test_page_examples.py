"""Images whose answer changed: found by running both networks, and counted as they count."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vqzoo
from vqzoo.data import fmnist
from vqzoo.data.evaluation_data import open_data
from vqzoo.models.dense import find_model
from vqzoo.page.collect import collect
from vqzoo.page.examples import ExampleOptions, Examples, find_examples
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

IMAGES = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact so small that it gives other answers."""
    fields = {
        "model": "alexnet_mini.fmnist",
        "method": "svd",
        "ratio": 32,
        "images": IMAGES,
    }
    out = tmp_path_factory.mktemp("examples") / "artifact"
    return run(make_recipe(fields), SilentWatcher(), out=out).folder


def test_examples_are_what_the_networks_answer(folder: Path) -> None:
    collection = collect([folder])
    options = ExampleOptions(count=5, images=IMAGES)
    (examples,) = find_examples(collection.runs, options, SilentWatcher())
    assert isinstance(examples, Examples)
    dense = find_model("alexnet_mini.fmnist", SilentWatcher()).module
    small = vqzoo.load(folder)
    answers: list[tuple[int, int, int]] = []
    divergence = 0.0
    with torch.inference_mode():
        for images, labels in open_data("fmnist", dense, images=IMAGES):
            assert labels is not None
            p, q = dense(images).double().log_softmax(1), small(images).double().log_softmax(1)
            divergence += float((p.exp() * (p - q)).sum())
            answers += zip(labels.tolist(), p.argmax(1).tolist(), q.argmax(1).tolist(), strict=True)
    changed = [answer for answer in answers if answer[1] != answer[2]]
    assert len(changed) > 5
    assert examples.images == IMAGES
    assert examples.lost == sum(label == before for label, before, _ in changed)
    assert examples.gained == sum(label == after for label, _, after in changed)
    assert examples.lost + examples.gained + examples.changed == len(changed)
    assert examples.agree == pytest.approx(100 * (1 - len(changed) / IMAGES))
    assert examples.kl == pytest.approx(divergence / IMAGES, rel=1e-4)
    sureness = [example.p_before for example in examples.shown]
    assert len(sureness) == 5
    assert sureness == sorted(sureness, reverse=True)
    record = collection.runs[0].record
    assert record.accuracy is not None
    assert record.accuracy.difference.top1 == pytest.approx(
        100 * (examples.gained - examples.lost) / IMAGES
    )


def test_pictures_are_the_images_themselves(folder: Path) -> None:
    (examples,) = find_examples(
        collect([folder]).runs, ExampleOptions(count=3, images=IMAGES), SilentWatcher()
    )
    assert isinstance(examples, Examples)
    split = fmnist.test_split()
    originals = {image.numpy().tobytes() for image in split.images[:, 0]}
    for example in examples.shown:
        data = base64.b64decode(example.picture.removeprefix("data:image/png;base64,"))
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        assert pixels.tobytes() in originals


def test_the_page_shows_examples_only_on_request(vqzoo: Any, folder: Path, tmp_path: Path) -> None:
    assert vqzoo("report", str(folder), "--out", "plain.html").exit_code == 0
    arguments = ("--examples", "2", "--images", str(IMAGES), "--out", "rich.html")
    assert vqzoo("report", str(folder), *arguments).exit_code == 0

    def run_in(name: str) -> dict[str, Any]:
        match = re.search(r'id="data">(.*?)</script>', (tmp_path / name).read_text(), re.DOTALL)
        assert match is not None
        return json.loads(match[1])["runs"][0]

    plain, rich = run_in("plain.html"), run_in("rich.html")
    assert plain["examples"] is plain["kl"] is None
    assert len(rich["examples"]["shown"]) == 2
    assert rich["kl"] == rich["examples"]["kl"]
    assert rich["kl_on"] == f"{IMAGES} images of fmnist, for this page"


def test_images_of_ones_own_need_their_folder_and_checkpoints_their_file(
    made: Path, tmp_path: Path
) -> None:
    runs = collect([made]).runs
    (reason,) = find_examples(runs, ExampleOptions(count=2), SilentWatcher())
    assert isinstance(reason, str)
    assert "--data imagefolder:PATH" in reason
    generator = np.random.default_rng(0)
    (tmp_path / "pictures/one").mkdir(parents=True)
    for index in range(8):
        picture = Image.fromarray(generator.integers(0, 256, (200, 180, 3), np.uint8))
        picture.save(tmp_path / f"pictures/one/{index}.png")
    data = f"imagefolder:{tmp_path / 'pictures'}"
    (reason,) = find_examples(runs, ExampleOptions(count=2, data=data), SilentWatcher())
    assert isinstance(reason, str)
    assert "--checkpoint FILE" in reason
    options = ExampleOptions(count=2, data=data, checkpoint=made.parent / "mine.safetensors")
    (examples,) = find_examples(runs, options, SilentWatcher())
    assert isinstance(examples, Examples)
    assert (examples.images, examples.data) == (8, "imagefolder:pictures")
    assert examples.lost == examples.gained == 0  # the images have no labels
