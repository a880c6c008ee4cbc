"""Training the embedded models, on a data set small enough to take seconds."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tools import embed_fmnist, train_embedded
from tools.fmnist_training import Recipe, Step, erase, normalize, schedule, train
from tools.train_embedded import main
from vqzoo.data import fmnist
from vqzoo.data.augment import augment
from vqzoo.data.fmnist import LabelledImages
from vqzoo.models.architectures.alexnet_mini import alexnet_mini
from vqzoo.models.registration import register_models


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training split of 600 images whose class is the column of a bright bar; 100 held out."""
    monkeypatch.setattr(fmnist, "HELD_OUT", 100)
    labels = np.random.default_rng(0).permutation(np.arange(10).repeat(60))
    images = np.zeros((600, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * 2 : label * 2 + 6, 4:24] = 200
    embed_fmnist.write_idx(torch.from_numpy(images), tmp_path / "train-images-idx3-ubyte.gz")
    embed_fmnist.write_idx(torch.from_numpy(labels).byte(), tmp_path / "train-labels-idx1-ubyte.gz")
    return tmp_path


def test_one_command_trains_records_and_repeats(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fmnist, "test_split", lambda: pytest.fail("the test split was read"))
    state = torch.get_rng_state()
    written = []
    for name, seed in [("one", 3), ("two", 3), ("three", 4)]:
        out = small_data / f"{name}.safetensors"
        command = ["alexnet_mini", "--data", str(small_data), "--out", str(out), "--epochs", "1"]
        assert main([*command, "--seed", str(seed)]) == 0
        written.append(out.read_bytes())
    assert written[0] == written[1] != written[2]
    assert torch.equal(state, torch.get_rng_state())
    assert not list(small_data.glob("*.tmp"))
    weights = load_file(small_data / "one.safetensors")
    floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float16}
    alexnet_mini().load_state_dict(weights)
    with safe_open(small_data / "one.safetensors", "pt") as file:
        record = json.loads(file.metadata()["vqzoo"])
    assert record["recipe"]["seed"] == 3
    assert record["recipe"]["epochs"] == 1
    assert record["torch"] == torch.__version__
    assert 0 <= record["held_out_top1"] <= 100
    assert "epoch   1  loss" in capsys.readouterr().err


def test_it_learns(small_data: Path) -> None:
    register_models()
    data = LabelledImages(*fmnist.train_split(small_data)[:80])
    recipe = Recipe(
        epochs=6,
        batch_size=20,
        warmup_epochs=1,
        drop_rate=0.1,
        ema_decay=0.5,
        crop_padding=0,
        erase_probability=0,
    )
    steps: list[Step] = []
    train(data, data, recipe, torch.device("cpu"), steps.append)
    accuracies = [step.accuracy for step in steps if step.accuracy is not None]
    assert len(steps) == 6 * 4
    assert len(accuracies) == 6
    assert accuracies[-1] > 90


@pytest.mark.parametrize("model", ["mobilenet_mini", "vit_mini"])
def test_training_goes_on_from_its_checkpoint_to_the_same_bytes(
    small_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
) -> None:
    def stop_after_an_epoch(*args: object) -> torch.nn.Module:
        *settings, on_step, checkpoint = args

        def on_step_until_stopped(step: Step) -> None:
            if step.epoch == 1:
                raise KeyboardInterrupt
            on_step(step)

        return train(*settings, on_step_until_stopped, checkpoint)

    def command(out: Path, *options: str) -> list[str]:
        return [model, "--data", str(small_data), "--out", str(out), "--epochs", "2", *options]

    whole, resumed = small_data / "whole", small_data / "resumed"
    assert main(command(whole)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(train_embedded, "train", stop_after_an_epoch)
        with pytest.raises(KeyboardInterrupt):
            main(command(resumed))
    capsys.readouterr()
    assert main(command(resumed, "--seed", "1")) == 2
    assert "another recipe" in capsys.readouterr().err
    assert main(command(resumed)) == 0
    errors = capsys.readouterr().err
    assert "epoch   2" in errors
    assert "epoch   1" not in errors
    assert resumed.read_bytes() == whole.read_bytes()
    assert not list(small_data.glob("*.checkpoint*"))
    network = timm.create_model(model)
    network.load_state_dict(load_file(whole))


def test_a_damaged_checkpoint_is_refused(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_data / "x.checkpoint").write_bytes(b"no checkpoint")
    assert main(["vit_mini", "--data", str(small_data), "--out", str(small_data / "x")]) == 2
    assert "x.checkpoint is damaged" in capsys.readouterr().err


def test_the_embedded_images_are_held_out_from_training(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, LabelledImages] = {}

    def watch(data: LabelledImages, held_out: LabelledImages, *rest: object) -> torch.nn.Module:
        seen.update(data=data, held_out=held_out)
        return alexnet_mini()

    monkeypatch.setattr(train_embedded, "train", watch)
    out = str(small_data / "x")
    assert main(["alexnet_mini", "--data", str(small_data), "--out", out]) == 0
    split = fmnist.train_split(small_data)
    held_out = fmnist.held_out_indices(split.labels)
    assert torch.equal(seen["held_out"].images, split.images[held_out])
    others = np.delete(np.arange(600), held_out.numpy())
    assert torch.equal(seen["data"].images, split.images[others])
    assert torch.equal(seen["data"].labels, split.labels[others])


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--data", "{}/none", "--out", "{}/x"], 1, "dataset-fashion-mnist"),
        (["--data", "{}", "--out", "{}/none/x"], 2, "not a folder"),
        (["--data", "{}", "--out", "{}/x", "--epochs", "0"], 2, "at least 1"),
        (["--data", "{}", "--out", "{}/x", "--device", "quantum"], 2, "--device quantum"),
    ],
)
def test_bad_commands_end_in_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, says: str
) -> None:
    assert main(["vit_mini", *(option.format(tmp_path) for option in options)]) == code
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_augmented_images_are_shifted_and_mirrored_ones(
    seed: int, padding: int, channels: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images = torch.randint(0, 256, (4, channels, 6, 5), dtype=torch.uint8)
        result = augment(images, padding)
    assert result.shape == images.shape
    for before, after in zip(images, result, strict=True):
        assert any(torch.equal(after, candidate) for candidate in _candidates(before, padding))


def _candidates(image: Tensor, padding: int) -> list[Tensor]:
    _, height, width = image.shape
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    crops = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]
    return crops + [crop.flip(2) for crop in crops]


def test_augmentation_draws_every_shift_and_both_sides() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
        result = augment(image.expand(2000, -1, -1, -1), 2)
    assert len({tuple(image.flatten().tolist()) for image in result}) == 5 * 5 * 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_erasing_puts_zeros_in_one_square_that_may_be_cut(
    seed: int, side: int, channels: int
) -> None:
    images = torch.ones(8, channels, 6, 5)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        result = erase(images, side, 1.0)
    for image in result:
        assert torch.equal(image, image[:1].expand_as(image))
        rows, columns = torch.nonzero(image[0] == 0, as_tuple=True)
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert len(rows) == height * width
        cut_rows = int(rows.min()) == 0 or int(rows.max()) == 5
        cut_columns = int(columns.min()) == 0 or int(columns.max()) == 4
        assert height == side or (height < side and cut_rows)
        assert width == side or (width < side and cut_columns)


def test_erasing_hits_images_with_the_given_probability() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.ones(4000, 1, 6, 5)
        touched = (erase(images, 3, 0.25) == 0).flatten(1).any(1).double().mean()
        assert torch.equal(erase(images, 3, 0.0), images)
    assert 0.22 < touched < 0.28


def test_normalize() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    expected = torch.tensor([-0.2860, 1 - 0.2860]) / 0.3530
    assert torch.allclose(normalize(images).flatten(), expected)


def test_schedule_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2)
    factors = [schedule(step, 50, recipe) for step in range(500)]
    assert factors[0] == 1 / 100
    assert factors[99] == factors[100] == max(factors) == 1
    assert all(a >= b for a, b in itertools.pairwise(factors[100:]))
    assert math.isclose(factors[300], 0.5)
    assert 0 < factors[-1] < 1e-4
