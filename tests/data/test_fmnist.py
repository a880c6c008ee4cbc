"""The embedded images, their files, and who may read the test split."""

from __future__ import annotations

import ast
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import vqzoo
from tools import embed_fmnist
from vqzoo.data import fmnist
from vqzoo.errors import VqzooError

PACKAGE = Path(vqzoo.__file__).parent


def test_test_split() -> None:
    split = fmnist.test_split()
    assert split.images.shape == (10_000, 1, 28, 28)
    assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert torch.bincount(split.labels).tolist() == [1000] * 10


def test_train_subset_is_balanced_in_every_ten() -> None:
    subset = fmnist.train_subset()
    assert subset.images.shape == (5_000, 1, 28, 28)
    tens = subset.labels.view(-1, 10).sort(dim=1).values
    assert torch.equal(tens, torch.arange(10).expand(500, 10))


def test_train_subset_holds_no_test_image_twice_over() -> None:
    test = {image.numpy().tobytes() for image in fmnist.test_split().images}
    subset = [image.numpy().tobytes() for image in fmnist.train_subset().images]
    assert len(set(subset)) == len(subset)
    assert not test & set(subset)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_held_out_indices_draw_500_of_each_class(seed: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(10).repeat(700)))
    chosen = fmnist.held_out_indices(labels)
    assert len(set(chosen.tolist())) == 5_000
    assert torch.bincount(labels[chosen]).tolist() == [500] * 10
    assert torch.equal(chosen, fmnist.held_out_indices(labels))


@given(st_numpy.arrays(np.uint8, st_numpy.array_shapes(max_dims=4, max_side=5)))
@settings(max_examples=30, deadline=None)
def test_idx_round_trip(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    embed_fmnist.write_idx(torch.from_numpy(values), path)
    assert np.array_equal(fmnist.read_idx(path).numpy(), values)


def test_idx_layout_is_lecuns(tmp_path: Path) -> None:
    path = tmp_path / "two-by-three.gz"
    path.write_bytes(gzip.compress(bytes.fromhex("00000802 00000002 00000003 010203040506")))
    assert fmnist.read_idx(path).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("content", "says"),
    [  # no time of compression: the names of the cases are the same in every process
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab", mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\x02\0\0\0\x01", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x03ab", mtime=0), "damaged"),
        (gzip.compress(b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xffab", mtime=0), "damaged"),
    ],
    ids=[
        "no gzip", "cut short", "empty", "short header", "floats", "short shape", "one label less",
        "huge shape",
    ],  # gzip records the time: an id made of the contents would differ between workers
)  # fmt: skip
def test_bad_idx_files_are_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(VqzooError, match=says) as caught:
        fmnist.read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named_with_their_sources(tmp_path: Path) -> None:
    with pytest.raises(VqzooError, match=r"dataset-fashion-mnist.*torchvision.*github") as caught:
        fmnist.train_split(tmp_path)
    assert "train-images-idx3-ubyte.gz" in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    embed_fmnist.write_idx(
        torch.zeros(3, 28, 28, dtype=torch.uint8), tmp_path / "train-images-idx3-ubyte.gz"
    )
    embed_fmnist.write_idx(
        torch.zeros(2, dtype=torch.uint8), tmp_path / "train-labels-idx1-ubyte.gz"
    )
    with pytest.raises(VqzooError, match="do not match"):
        fmnist.train_split(tmp_path)


def test_embedding_repeats_byte_for_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.permutation(np.arange(10).repeat(501))).byte()
    images = torch.from_numpy(rng.integers(0, 256, (5010, 28, 28), dtype=np.uint8))
    data = tmp_path / "data"
    data.mkdir()
    embed_fmnist.write_idx(images, data / "train-images-idx3-ubyte.gz")
    embed_fmnist.write_idx(labels, data / "train-labels-idx1-ubyte.gz")
    for name in embed_fmnist.COPIED:
        (data / name).write_bytes(name.encode())
    for out in ("one", "two"):
        assert embed_fmnist.main(["--data", str(data), "--out", str(tmp_path / out)]) == 0
    written = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(written) == 5
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    subset = fmnist.read_split(tmp_path / "one", "train5k")
    chosen = fmnist.held_out_indices(labels.long())
    assert torch.equal(subset.images.squeeze(1), images[chosen])
    assert torch.equal(subset.labels, labels[chosen].long())


def test_package_data_stays_under_25_megabytes() -> None:
    assets = [path for path in PACKAGE.glob("*/assets/**/*") if path.is_file()]
    assert assets
    assert sum(path.stat().st_size for path in assets) < 25_000_000
    assert "MIT" in (fmnist.ASSETS / "LICENSE").read_text()


def test_only_evaluation_reads_the_test_split() -> None:
    """Only the module of evaluation data names the split, and no trainer imports that."""
    root = PACKAGE.parent
    shipped = [
        *PACKAGE.rglob("*.py"),
        *(root / "plugins").rglob("*.py"),
        *(root / "tools").rglob("*.py"),
    ]
    names_it = {path for path in shipped if _names(path) & {"test_split", "t10k"}}
    assert names_it == {PACKAGE / "data" / name for name in ("evaluation_data.py", "fmnist.py")}
    trainers = {path for path in shipped if _names(path) & {"train_subset", "train_split"}}
    assert root / "tools" / "train_embedded.py" in trainers
    for path in trainers - {PACKAGE / "data" / "fmnist.py"}:
        assert not _names(path) & {
            "open_data",
            "vqzoo.data.evaluation_data",
            "vqzoo.evaluation.accuracy",
        }, path


def _names(path: Path) -> set[str]:
    """Every identifier, imported module and string constant of a source file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found
