"""Runs on the network and the images that ship with vqzoo."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vqzoo.data.fmnist import train_subset
from vqzoo.network.load import load
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

RUN = ("run", "alexnet_mini.fmnist", "--method", "pq")


@pytest.fixture(scope="module")
def pq_run(tmp_path_factory: pytest.TempPathFactory):
    """`vqzoo run alexnet_mini.fmnist --method pq`, once, on all 10,000 images."""
    recipe = make_recipe({"model": "alexnet_mini.fmnist", "method": "pq"})
    return run(recipe, SilentWatcher(), out=tmp_path_factory.mktemp("embedded") / "pq")


@pytest.mark.slow
def test_pq_with_nothing_else_given_keeps_the_papers_promise(pq_run) -> None:
    record = pq_run.record
    assert record.accuracy.data == "fmnist"
    assert record.accuracy.images == 10_000
    assert abs(record.accuracy.dense.top1 - 93.21) <= 0.02  # as README and docs state it
    assert record.accuracy.difference.top1 >= -1
    assert record.ratio.layers >= 16
    assert record.ratio.file >= 8
    assert [layer.kind for layer in record.layers] == ["linear"] * 3


@pytest.mark.slow
def test_the_file_is_as_small_as_the_record_says(pq_run) -> None:
    size = (pq_run.folder / "vqzoo.safetensors").stat().st_size
    assert pq_run.record.bytes.file == size
    assert pq_run.record.bytes.dense / size == pq_run.record.ratio.file


def test_offline_alexnet_means_its_embedded_relative_and_eval_agrees_with_the_record(
    vqzoo, tmp_path: Path
) -> None:
    command = "run alexnet --method binary --images 500 --out a --json"
    ran = vqzoo(*command.split(), TORCH_HOME=str(tmp_path))
    assert ran.exit_code == 0, ran.stderr
    assert "embedded alexnet_mini.fmnist" in ran.stderr
    record = json.loads(ran.stdout)
    assert record["model"] == "alexnet_mini.fmnist"
    assert record["accuracy"]["images"] == 500
    measured = json.loads(vqzoo("eval", "a", "--images", "500", "--json").stdout)
    for top in ("top1", "top5"):
        assert measured[top] == record["accuracy"]["compressed"][top]


def test_unlabelled_images_give_agreement(vqzoo, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(train_subset().images[:30]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "photos" / f"{index}.png")
    result = vqzoo(*RUN, "--data", "imagefolder:photos", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["accuracy"] is None
    assert record["agreement"]["images"] == 30
    assert 50 <= record["agreement"]["top1"] <= 100
    assert record["agreement"]["kl"] >= 0
    assert str(tmp_path) not in result.stdout


def test_compare_draws_curves_and_can_be_resumed(vqzoo, tmp_path: Path) -> None:
    command = (
        "compare", "alexnet_mini.fmnist", "--methods", "pq,svd", "--ratios", "16,32",
        "--layers", "features.11", "--images", "100", "--out", "c", "--json",
    )  # fmt: skip
    first = vqzoo(*command)
    assert first.exit_code == 0, first.stderr
    comparison = json.loads(first.stdout)
    assert [point["method"] for point in comparison["points"]] == ["pq", "pq", "svd", "svd"]
    by_method = {point["method"]: point for point in comparison["points"]}
    assert by_method["pq"]["row_sqnr_db"] > by_method["svd"]["row_sqnr_db"]
    assert (tmp_path / "c/compare.png").read_bytes().startswith(b"\x89PNG")
    stamp = (tmp_path / "c/pq-16x/vqzoo.safetensors").stat().st_mtime_ns
    assert json.loads(vqzoo(*command).stdout) == comparison
    assert (tmp_path / "c/pq-16x/vqzoo.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("how", ["--method pq --layers all", "--size 150kB"])
@pytest.mark.parametrize("model", ["mobilenet_mini.fmnist", "vit_mini.fmnist"])
def test_networks_of_today_are_compressed_and_run_in_both_modes(
    vqzoo, tmp_path: Path, model: str, how: str
) -> None:
    few = ("--images", "300", "--calibration-images", "64")
    ran = vqzoo("run", model, *how.split(), *few, "--out", "a", "--json")
    assert ran.exit_code == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record["coverage"]["compressed"] > 0.9 * record["coverage"]["parameters"]
    assert set(record["skipped"]) <= {"pos_embed"}
    assert ("Calibrating on fmnist" in ran.stderr) == how.startswith("--size")
    if how.startswith("--size"):
        assert 0.99 * 150_000 <= record["bytes"]["file"] <= 150_000
        assert record["accuracy"]["difference"]["top1"] > -5
    images = train_subset().images[:8].float() / 255
    decoded, codes = (load(str(tmp_path / "a"), mode=mode) for mode in ("decoded", "codes"))
    with torch.inference_mode():
        expected, logits = decoded(images), codes(images)
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
