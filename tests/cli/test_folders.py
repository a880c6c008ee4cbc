"""Folders of images on the command line: class maps, their order, unreadable images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

Vqzoo = Callable[..., Any]

MODEL = ("test_resnet", "--model-arg", "num_classes=3", "--checkpoint", "mine.safetensors")
METHOD = ("-m", "km", "-o", "k=4", "--layers", "fc")
DATA = ("--data", "imagefolder:pictures")


@pytest.fixture(autouse=True)
def setting(tmp_path: Path) -> Path:
    """A network of three classes, and folders 1, 2 and 10 of four images each."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    rng = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "classes.txt").write_text("1\n10\n2\n")
    return tmp_path


def test_run_says_the_order_and_takes_a_class_map(vqzoo: Vqzoo, setting: Path) -> None:
    result = vqzoo("run", *MODEL, *METHOD, *DATA, "--out", "natural")
    assert result.exit_code == 0, result.output
    rule = "class folders in natural order: '1' is class 0, '10' is class 2"
    assert rule in " ".join(result.stdout.split())
    warning = "warning: imagefolder:pictures: class 1 is the folder '2' in natural order"
    assert result.stderr.count(warning) == 1
    record = json.loads((setting / "natural" / "report.json").read_text())
    assert record["accuracy"]["labels"] == rule
    assert "unreadable" not in record
    assert "--class-map" not in record["command"]

    folder = setting / "elsewhere"
    folder.mkdir()
    (setting / "classes.txt").rename(folder / "classes.txt")
    mapped = vqzoo(
        "run", *MODEL, *METHOD, *DATA, "--class-map", str(folder / "classes.txt"), "--out", "mapped"
    )
    assert mapped.exit_code == 0, mapped.output
    assert "natural order" not in mapped.stderr
    record = json.loads((setting / "mapped" / "report.json").read_text())
    assert record["accuracy"]["labels"] == "class folders by class map: classes.txt"
    assert "--class-map classes.txt" in record["command"]
    assert "elsewhere" not in json.dumps(record)


def test_run_says_why_there_are_no_labels(vqzoo: Vqzoo, setting: Path) -> None:
    (setting / "pictures" / "11").mkdir()
    result = vqzoo("run", *MODEL, *METHOD, *DATA, "--out", "a")
    assert result.exit_code == 0, result.output
    assert (
        "imagefolder:pictures has no labels for this model: 4 class folders, but the model has 3 "
        "classes; --class-map FILE says which they are."
    ) in result.stderr.splitlines()


def test_another_map_is_another_run(vqzoo: Vqzoo, setting: Path) -> None:
    command = ("run", *MODEL, *METHOD, *DATA, "--class-map", "classes.txt", "--json")
    first = json.loads(vqzoo(*command, "--out", "a").stdout)
    (setting / "classes.txt").write_text("2\n10\n1\n")
    other = json.loads(vqzoo(*command, "--out", "b").stdout)
    assert first["asked_sha256"] != other["asked_sha256"]
    for network in ("dense", "compressed"):
        top1 = [run["accuracy"][network]["top1"] for run in (first, other)]
        assert all(0 <= value <= 100 for value in top1)


def test_eval_and_finetune_take_a_class_map(vqzoo: Vqzoo, setting: Path) -> None:
    assert vqzoo("run", *MODEL, *METHOD, "--out", "a").exit_code == 0
    natural = json.loads(vqzoo("eval", "a", *DATA, "--json").stdout)
    mapped = json.loads(vqzoo("eval", "a", *DATA, "--class-map", "classes.txt", "--json").stdout)
    by_name = {"1": 0, "10": 1, "2": 2}
    (setting / "same.json").write_text(json.dumps(by_name))
    same = json.loads(vqzoo("eval", "a", *DATA, "--class-map", "same.json", "--json").stdout)
    assert same | {"labels": ""} == mapped | {"labels": ""}
    assert natural["labels"].startswith("class folders in natural order")
    assert (
        "labels: class folders by class map: classes.txt"
        in vqzoo("eval", "a", *DATA, "--class-map", "classes.txt").stdout.splitlines()
    )
    tuned = vqzoo(
        "finetune", "a", "--epochs", "1", "--data", "imagefolder:pictures", "--class-map",
        "classes.txt", "--checkpoint", "mine.safetensors", "--out", "b",
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    assert "imagefolder:pictures: class folders by class map: classes.txt" in tuned.stderr
    record = json.loads((setting / "b" / "report.json").read_text())
    assert "--class-map classes.txt" in record["command"].partition("&&")[2]


def test_unreadable_images_are_named_everywhere(vqzoo: Vqzoo, setting: Path) -> None:
    (setting / "pictures" / "2" / "3.png").write_bytes(b"no image")
    command = (
        "run", *MODEL, *METHOD, *DATA, "--calibrate", "imagefolder:pictures", "--out", "a",
    )  # fmt: skip
    refused = vqzoo(*command)
    assert refused.exit_code == 1
    assert "3.png cannot be read: not an image of a known kind" in refused.stderr
    assert not (setting / "a").exists()
    result = vqzoo(*command, "--skip-unreadable")
    assert result.exit_code == 0, result.output
    named = "imagefolder:pictures: 1 image of 12 cannot be read and will be left out: 2/3.png"
    assert result.stderr.count(named) == 1
    assert "1 image of imagefolder:pictures that cannot be read: 2/3.png" in " ".join(
        result.stdout.split()
    )
    record = json.loads((setting / "a" / "report.json").read_text())
    assert record["unreadable"] == {"imagefolder:pictures": ["2/3.png"]}
    assert record["accuracy"]["images"] == 11
    assert record["calibration"]["images"] == 11
    assert "--skip-unreadable" in record["command"]
    card = (setting / "a" / "README.md").read_text()
    assert "on the same images. 1 image could not be read and had to be left out. ± is" in card
    for task in ((), ("--task", "retrieval")):
        measured = json.loads(
            vqzoo("eval", "a", *DATA, "--skip-unreadable", "--json", *task).stdout
        )
        assert (measured["images"], measured["unreadable"]) == (11, ["2/3.png"])


@pytest.mark.parametrize("task", ["accuracy", "retrieval"])
def test_compare_takes_both(vqzoo: Vqzoo, setting: Path, task: str) -> None:
    (setting / "pictures" / "2" / "3.png").write_bytes(b"no image")
    save_file(
        timm.create_model("test_resnet").state_dict(), setting / "mine.safetensors"
    )  # `compare` takes no --model-arg
    result = vqzoo(
        "compare", "test_resnet", "--checkpoint", "mine.safetensors", "--methods", "km", "--ratios",
        "8", "--layers", "fc", *DATA, "--class-map", "classes.txt", "--skip-unreadable", "--task",
        task, "--out", "c", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 11
    (report,) = setting.glob("c/*/report.json")
    assert json.loads(report.read_text())["unreadable"] == {"imagefolder:pictures": ["2/3.png"]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--class-map", "classes.txt"), "a class map is for folders of labelled images"),
        (("--class-map", "classes.txt", "--data", "fmnist"), "a class map is for folders"),
        (("--class-map", "gone.txt", *DATA), "class map gone.txt cannot be read: No such file"),
        (("--class-map", "mine.safetensors", *DATA), "is not text"),
        (("--class-map", "short.txt", *DATA), "leaves out the class folders '2', '10'"),
    ],
)
def test_bad_class_maps_are_refused_before_any_work(
    vqzoo: Vqzoo, setting: Path, arguments: tuple[str, ...], says: str
) -> None:
    (setting / "short.txt").write_text("1\n")
    for command in (
        ("run", *MODEL, *METHOD, "--out", "a"),
        ("eval", "alexnet_mini.fmnist"),
    ):
        result = vqzoo(*command, *arguments)
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2, line
        assert line.startswith("error: ")
        if command[0] == "run":
            assert says in line
    assert not list(setting.glob("a*"))


def test_four_channels_are_refused_before_any_work(vqzoo: Vqzoo, setting: Path) -> None:
    arguments = ("--weights", "random", "--model-arg", "num_classes=3", "--model-arg", "in_chans=4")
    result = vqzoo("run", "test_resnet", *arguments, *METHOD, *DATA, "--out", "a")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line == ("error: the model takes images of 4 channels; vqzoo prepares images of 1 or 3")
    assert not (setting / "a").exists()
    grey = vqzoo(
        "run", "test_vit", "--weights", "random", "--model-arg", "num_classes=3", "--model-arg",
        "in_chans=1", "--model-arg", "img_size=96", "-m", "rtn", *DATA, "--out", "b", "--json",
    )  # fmt: skip
    assert grey.exit_code == 0, grey.output
    assert json.loads(grey.stdout)["accuracy"]["images"] == 12
    again = vqzoo("eval", "b", *DATA, "--json")
    assert json.loads(again.stdout)["images"] == 12
