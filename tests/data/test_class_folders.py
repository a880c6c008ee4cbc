"""Class folders: which class each one is, and what is said about it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch import nn

import vqzoo
from vqzoo.data.class_folders import scan_folders
from vqzoo.data.class_map import ClassMap, read_class_map
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.sources import ReadOptions
from vqzoo.data.training_data import open_training_data
from vqzoo.errors import ClassOrderWarning, UsageError

FolderMaker = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path) -> FolderMaker:
    def make(*names: str) -> Path:
        """A root with one image in each folder."""
        root = tmp_path / "pictures"
        for name in names:
            (root / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / name / "0.png")
        return root

    return make


class Classes(nn.Module):
    """A model of some classes, and nothing else."""

    def __init__(self, num_classes: int, label_names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pretrained_cfg = {"input_size": (3, 8, 8), "label_names": label_names}


def labels_of(data: Data) -> list[int]:
    return torch.cat([batch.labels for batch in data if batch.labels is not None]).tolist()


def by_folder(data: Data, root: Path) -> dict[str, int]:
    """Folder -> its label; each has one image."""
    order = [image.folder for image in scan_folders(root)[1]]
    return dict(zip(order, labels_of(data), strict=True))


@given(st.lists(st.text("aB1023²_", min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
def test_natural_order_is_timms(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    if any("²" in name for name in names):  # timm's key fails on these
        names = [name.replace("²", "x") for name in names]
    root = tmp_path_factory.mktemp("folders")
    for name in dict.fromkeys(names):
        (root / name).mkdir()
        (root / name / "0.png").touch()
    keys = [timm.utils.misc.natural_key(name) for name in dict.fromkeys(names)]
    if all(keys.count(key) == 1 for key in keys):  # else the file system decides in timm
        assert scan_folders(root)[0] == list(find_images_and_targets(str(root))[1])


def test_names_that_count_as_equal_are_in_text_order(folders: FolderMaker) -> None:
    root = folders("1", "01", "001", "A", "a", "²")
    assert scan_folders(root)[0] == ["001", "01", "1", "A", "a", "²"]


@pytest.mark.parametrize(
    "names", [("0", "1", "2", "10"), ("class 2", "class 10"), ("b", "B10", "a"), ("x9", "x10", "x")]
)
def test_a_warning_says_where_the_order_matters(
    folders: FolderMaker, names: tuple[str, ...]
) -> None:
    root = folders(*names)
    spec, model = f"imagefolder:{root}", Classes(len(names))
    expected = sorted(names, key=timm.utils.misc.natural_key)
    with pytest.warns(ClassOrderWarning, match="natural order.*text order.*--class-map") as caught:
        data = open_data(spec, model)
    assert by_folder(data, root) == {name: i for i, name in enumerate(expected)}
    assert "natural order" in data.labels
    place = next(i for i, name in enumerate(sorted(names)) if name != expected[i])
    message = str(caught[0].message)
    assert f"class {place} is the folder {expected[place]!r}" in message
    assert f"{sorted(names)[place]!r} in text order" in message
    for name in names:
        Image.new("RGB", (8, 8)).save(root / name / "1.png")
    with pytest.warns(ClassOrderWarning):
        open_training_data(spec, model)


@pytest.mark.parametrize("names", [("0", "1", "2"), ("000", "001", "010"), ("cat", "dog")])
def test_no_warning_where_the_orders_agree(folders: FolderMaker, names: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_data(f"imagefolder:{folders(*names)}", Classes(len(names)))
    assert data.labels == (
        f"class folders in natural order: {names[0]!r} is class 0, "
        f"{names[-1]!r} is class {len(names) - 1}"
    )


def test_no_warning_where_the_order_decides_nothing(folders: FolderMaker) -> None:
    spec = f"imagefolder:{folders('2', '10')}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels_of(open_data(spec, Classes(2, ("10", "2")))) == [1, 0]
        assert not open_data(spec, Classes(3)).labelled
        assert labels_of(open_data(spec, Classes(2), own_labels=True)) == [0, 1]
        mapped = open_data(spec, Classes(2), read=ReadOptions({"2": 0, "10": 1}))
    assert mapped.labels == "class folders by class map: the mapping given"


@pytest.mark.parametrize(
    ("classes", "subset"), [(1000, "imagenet-1k"), (11821, "imagenet-12k"), (21841, "imagenet-22k")]
)
def test_synsets_are_matched_by_name(folders: FolderMaker, classes: int, subset: str) -> None:
    names = timm.data.ImageNetInfo(subset).label_names()
    chosen = [names[i] for i in (classes - 1, 0, 7)]
    root = folders(*chosen)
    data = open_data(f"imagefolder:{root}", Classes(classes))
    assert by_folder(data, root) == {name: names.index(name) for name in chosen}
    assert data.labels == f"class folders by name: synsets of {subset}"


def test_a_models_own_order_of_synsets_comes_first(folders: FolderMaker) -> None:
    own = tuple(reversed(timm.data.ImageNetInfo().label_names()))
    root = folders(own[3], own[500])
    data = open_data(f"imagefolder:{root}", Classes(1000, own))
    assert by_folder(data, root) == {own[3]: 3, own[500]: 500}


def test_a_folder_that_is_no_class_is_named(folders: FolderMaker) -> None:
    data = open_data(f"imagefolder:{folders('n01440764', 'n01443537', 'junk')}", Classes(1000))
    assert not data.labelled
    assert "none is called 'junk'" in data.unlabelled
    assert "--class-map" in data.unlabelled


MAPS: dict[str, str] = {
    "lines": "dog\nold cat\nape\n",
    "numbered": "ape 2\ndog 0\nold cat 1\n",
    "tabs": "ape\t2\r\ndog\t0\r\nold cat\t1\r\n",
    "commas": "ape,2\ndog, 0\nold cat ,1",
    "more lines than folders": "dog\nold cat\nape\nzebra\n",
    "json": json.dumps({"ape": 2, "dog": 0, "old cat": 1, "zebra": 900}),
    "json, inverse": json.dumps({"2": "ape", "0": "dog", "1": "old cat"}),
    "json list": json.dumps(["dog", "old cat", "ape"]),
    "byte order mark": "\ufeffdog\nold cat\nape",
}


@pytest.mark.parametrize("form", MAPS)
def test_forms_of_class_maps(folders: FolderMaker, tmp_path: Path, form: str) -> None:
    root, path = folders("ape", "dog", "old cat"), tmp_path / "classes.txt"
    path.write_bytes(MAPS[form].encode())
    data = open_data(f"imagefolder:{root}", Classes(3), read=ReadOptions(path))
    assert by_folder(data, root) == {"ape": 2, "dog": 0, "old cat": 1}
    assert data.labels == "class folders by class map: classes.txt"


def test_lines_of_names_are_read_as_timm_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("class 3\n\nclass 1\nclass 2\n")
    names = ["class 1", "class 2", "class 3"]
    theirs = timm.data.readers.class_map.load_class_map(str(path))
    assert read_class_map(path, names, None) == {name: theirs[name] for name in names}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ape\ndog\n", "leaves out the class folders 'old cat'; it names 'ape', 'dog'"),
        (b"", "leaves out the class folders 'ape', 'dog', 'old cat'; it names nothing"),
        (b"ape tailless\ndog barks\nold cat 1", "leaves out the class folders 'ape', 'dog'"),
        (b"ape 0\ndog 1\nold cat 3", "'old cat' the class 3: the model has 3 classes"),
        (b"ape 0\ndog 1\ndog 2\nold cat 2", "'dog' the classes 1 and 2"),
        (b'{"ape": 0, "dog": 1.5, "old cat": 2}', "'dog' the class 1.5"),
        (b'{"ape": true, "dog": 1, "old cat": 2}', "'ape' the class True"),
        (b'{"ape": -1, "dog": 1, "old cat": 2}', "'ape' the class -1"),
        (b'{"ape": 0, "ape": 1}', "'ape' the classes 0 and 1"),
        (b'{"ape": 0,', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'[["ape"], "dog"]', "is neither"),
        (b"\x80\x04\x95", "is not text"),
        (b"a" * ((1 << 24) + 1), "more than 16,777,216 bytes"),
        (None, "cannot be read: No such file"),
    ],
)
def test_class_maps_that_do_not_fit(
    folders: FolderMaker, tmp_path: Path, content: bytes | None, says: str
) -> None:
    root, path = folders("ape", "dog", "old cat"), tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        open_data(f"imagefolder:{root}", Classes(3), read=ReadOptions(path))
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_class_map_needs_class_folders(tmp_path: Path) -> None:
    read = ReadOptions({"a": 0})
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(UsageError, match="no class folders"):
        open_data(f"imagefolder:{tmp_path}", Classes(3), read=read)
    for spec in ("fmnist", "torch/cifar10"):
        with pytest.raises(UsageError, match="leave the class map out"):
            open_data(spec, Classes(10), read=read)


def test_a_class_map_groups_folders_for_retrieval(folders: FolderMaker) -> None:
    root, groups = folders("a", "b", "c"), {"a": 7, "b": 7, "c": 5000}
    data = open_data(f"imagefolder:{root}", Classes(2), own_labels=True, read=ReadOptions(groups))
    assert labels_of(data) == [7, 7, 5000]


@pytest.mark.parametrize("class_map", [{"2": 0, "10": 1}, "10 1\n2 0"])
def test_evaluate_takes_a_class_map(
    folders: FolderMaker, tmp_path: Path, class_map: ClassMap
) -> None:
    root = folders("2", "10")
    Image.new("RGB", (8, 8), "white").save(root / "10" / "0.png")
    if isinstance(class_map, str):
        path = tmp_path / "map"
        path.write_text(class_map)
        class_map = path

    class Bright(Classes):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3))
            return torch.stack([-mean, mean], 1)

    spec = f"imagefolder:{root}"
    assert vqzoo.evaluate(Bright(2), spec, class_map=class_map).top1 == 100
    turned = vqzoo.evaluate(Bright(2), spec, class_map={"2": 1, "10": 0})
    assert (turned.top1, turned.labels) == (0, "class folders by class map: the mapping given")
    opened = open_data(spec, Bright(2), read=ReadOptions(class_map))
    with pytest.raises(ValueError, match="open already"):
        vqzoo.evaluate(Bright(2), opened, class_map=class_map)
