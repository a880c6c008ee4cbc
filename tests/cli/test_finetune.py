"""`vqzoo run --finetune` and `vqzoo finetune`: what they write, repeat, resume and refuse."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import vqzoo
from vqzoo.artifact.encode import encode_layer
from vqzoo.artifact.reader import open_artifact
from vqzoo.artifact.writer import write_artifact
from vqzoo.cli.main import app
from vqzoo.comparison.accuracy import Comparison, Point, largest_ratios
from vqzoo.data import fmnist
from vqzoo.models.timm_config import timm_config
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher, TrainingSteps
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

STAGED = '''
from vqzoo.plugin import hookimpl
from vqzoo_vq.kmeans import ScalarKMeans


class Staged(ScalarKMeans):
    """Scalar k-means that wants the network retrained with twice as many centroids first."""

    name = "staged"

    def stages(self, options):
        return [("km", {"k": 2 * options.k})]


@hookimpl
def vqzoo_quantizers():
    return [Staged()]
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a few pictures in `pictures`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(9):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


def invoke(*arguments: str) -> dict:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def same_bytes(one: str, two: str) -> bool:
    return all(
        Path(one, name).read_bytes() == Path(two, name).read_bytes()
        for name in ("vqzoo.safetensors", "config.json")
    )


def codes(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(Path(folder, "vqzoo.safetensors"))
    return {key: tensor for key, tensor in tensors.items() if key.endswith("::codes")}


TUNE = ["--finetune", "1", "--train-data", "imagefolder:pictures", "--batch-size", "4"]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_a_transformer_and_a_convnext_end_to_end(name: str) -> None:
    arguments = ["run", name, "--weights", "random", "-m", "pq", "-o", "k=8", "--layers", "all"]
    record = invoke(*arguments, *TUNE, "--out", "a")
    assert record["finetuning"]["best_epoch"] == 1
    assert (
        record["finetuning"]["history"][1]["validation_loss"]
        < (record["finetuning"]["history"][0]["validation_loss"])
    )
    invoke(*arguments, *TUNE, "--out", "again")
    assert same_bytes("a", "again")
    invoke(*arguments, "--out", "plain")
    assert open_artifact("plain").block.bytes == open_artifact("a").block.bytes
    before, after = codes("plain"), codes("a")
    assert all(torch.equal(before[key], after[key]) for key in before)
    model = vqzoo.load("a")
    assert torch.isfinite(model(torch.zeros(1, *model.pretrained_cfg["input_size"]))).all()


@pytest.fixture
def without_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("the test images were read")

    monkeypatch.setattr(fmnist, "test_split", refuse)


def test_test_images_are_never_trained_on(without_test_images: None) -> None:
    """Measured on other images, fine-tuning of the embedded network reads no test image."""
    for i in range(2):
        Path("grey").mkdir(exist_ok=True)
        Image.new("L", (28, 28), 90 * i).save(f"grey/{i}.png")
    record = invoke(
        "run", "alexnet_mini.fmnist", "-m", "km", "-o", "k=4", "--layers", "classifier.6",
        "--finetune", "1", "--train-images", "64", "--train", "codebooks",
        "--data", "imagefolder:grey", "--out", "a",
    )  # fmt: skip
    assert record["finetuning"]["images"] == 64
    assert record["finetuning"]["data"].startswith("fmnist, 64 training images")
    tuned = invoke(
        "finetune", "a", "--epochs", "1", "--train-images", "64", "--train", "codebooks",
        "--eval-data", "imagefolder:grey", "--out", "b",
    )  # fmt: skip
    assert tuned["bytes"] == record["bytes"]
    assert tuned["command"].startswith("vqzoo run alexnet_mini.fmnist")
    assert "&& vqzoo finetune a --epochs 1" in tuned["command"]


def test_stages_run_first_and_are_recorded() -> None:
    Path("staged.py").write_text(STAGED)
    arguments = ["run", "test_resnet", "--weights", "random", "-m", "staged", "-o", "k=4"]
    record = invoke(*arguments, *TUNE, "--plugin", "staged.py", "--out", "a")
    assert [stage["method"] for stage in record["stages"]] == ["dense", "km", "staged"]
    dense, first, last = record["stages"]
    assert dense["bytes"] == record["bytes"]["dense"]
    assert first["options"]["fc"]["k"] == 8
    assert first["bytes"] > last["bytes"] == record["bytes"]["file"]
    packed = invoke(
        *arguments, *TUNE, "--plugin", "staged.py", "--packing", "huffman", "--out", "c"
    )
    fixed_width, huffman = packed["stages"][-2:]
    assert [stage["packing"] for stage in packed["stages"][1:]] == ["bits", "bits", "huffman"]
    assert fixed_width["bytes"] == last["bytes"]
    assert huffman["bytes"] == Path("c/vqzoo.safetensors").stat().st_size
    assert not list(Path().glob("*.partial"))
    alone = invoke("run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=8", *TUNE,
                   "--out", "b")  # fmt: skip
    assert alone["bytes"]["file"] == pytest.approx(first["bytes"], abs=64)
    assert (first["validation_loss"], first["best_epoch"]) == (
        alone["stages"][1]["validation_loss"], alone["stages"][1]["best_epoch"],
    )  # fmt: skip


class Dies(SilentWatcher):
    """Interrupts the run in the middle of the epoch number `epoch`."""

    def __init__(self, epoch: int) -> None:
        self.epochs = 0
        self.epoch = epoch

    @contextmanager
    def training(self, text: str) -> Iterator[TrainingSteps]:
        self.epochs += 1

        def show(done: int, total: int | None, reached: str) -> None:
            if self.epochs == self.epoch:
                raise KeyboardInterrupt

        yield show


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_an_interrupted_run_resumes_after_its_last_epoch(epoch: int) -> None:
    """Two stages of two epochs; the fourth is the second of the last stage."""
    Path("staged.py").write_text(STAGED)
    recipe = make_recipe(
        {
            "model": "test_resnet", "weights": "random", "method": "staged", "options": {"k": 4},
            "plugins": ("staged.py",),
            "finetune": {"epochs": 2, "data": "imagefolder:pictures", "batch_size": 4},
        }
    )  # fmt: skip
    run(recipe, SilentWatcher(), out=Path("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe, Dies(epoch), out=Path("broken"))
    left = Dies(99)
    run(recipe, left, out=Path("broken"))
    assert left.epochs == 4 - (epoch - 1)
    assert same_bytes("whole", "broken")


def test_an_artifact_is_fine_tuned_into_a_new_one() -> None:
    invoke("run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--out", "a")
    arguments = ["--epochs", "2", "--data", "imagefolder:pictures", "--batch-size", "4"]
    record = invoke("finetune", "a", *arguments)
    assert "by distillation from the dense model on imagefolder:pictures" in Path(
        "a-finetuned/README.md"
    ).read_text().replace("\\", "")
    assert set(record["seconds"]) == {"finetune", "evaluate", "total"}
    assert same_bytes("a", "a-finetuned") is False
    assert torch.equal(codes("a")["fc.weight::codes"], codes("a-finetuned")["fc.weight::codes"])
    invoke("finetune", "a", *arguments, "--out", "b")
    assert same_bytes("a-finetuned", "b")
    again = CliRunner().invoke(app, ["finetune", "a", *arguments])
    assert (again.exit_code, "--force" in again.stderr) == (2, True)
    Path("a/report.json").unlink()  # as it comes from the Hub
    shown = CliRunner().invoke(app, ["finetune", "a", *arguments, "--out", "c"])
    assert (shown.exit_code, "fine-tuning" in shown.stdout) == (0, True)
    assert same_bytes("b", "c")


def test_folded_norms_stay_folded() -> None:
    words = ["run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--out", "a"]
    dense = invoke(*words, "--fold-norms")
    arguments = ["--epochs", "1", "--data", "imagefolder:pictures", "--batch-size", "4"]
    record = invoke("finetune", "a", *arguments)
    assert record["norms"] == dense["norms"]
    assert record["norms"]["folded"]["conv1.1"] == "conv1.0"
    errors = [[layer["sqnr_db"] for layer in one["layers"]] for one in (dense, record)]
    # Against weights that are not folded, nothing would be left of them.
    assert all(after > before - 3 for before, after in zip(*errors, strict=True))
    Path("a/report.json").unlink()  # as it comes from the Hub
    again = invoke("finetune", "a", *arguments, "--out", "b")
    assert again["norms"]["folded"] == dense["norms"]["folded"]


def test_invalid_requests_are_refused_before_anything_is_written() -> None:
    invoke("run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--out", "a")
    for arguments, said in (
        (["finetune", "a"], "no training images"),
        (["finetune", "a", "--data", "imagefolder:nowhere"], "cannot be read"),
        (["finetune", "nowhere", "--data", "imagefolder:pictures"], "nowhere"),
        (["finetune", "a", "--optimizer", "lion", "--data", "imagefolder:pictures"], "optimizer"),
        (["finetune", "a", "--teacher", "test_vit.r160_in1k", "--checkpoint", "no.pth"], "no.pth"),
        (["run", "test_resnet", "--weights", "random", "-m", "km", "--lr", "1"], "--finetune"),
        (["run", "test_resnet", "--weights", "random", "-m", "km", "--finetune", "2"],
         "no training images"),
    ):  # fmt: skip
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code != 0
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["a", "pictures"]


def test_every_layer_keeps_its_own_row_and_packing() -> None:
    """Headers sort layers by name: "fc" before "layer1"."""
    record = invoke("run", "test_resnet", "--weights", "random", "-m", "pq", "-o", "k=16",
                  "--layers", "all", "--packing", "huffman", "--repair", "imagefolder:pictures",
                  "--out", "a")  # fmt: skip
    layers = [row["name"] for row in record["layers"]]
    assert layers != sorted(layers)
    arguments = [
        "--epochs",
        "1",
        "--data",
        "imagefolder:pictures",
        "--batch-size",
        "4",
        "--seed",
        "3",
    ]
    tuned = invoke("finetune", "a", *arguments)
    for before, after in zip(record["layers"], tuned["layers"], strict=True):
        for name in ("name", "shape", "bytes", "ratio", "codes", "options"):
            assert after[name] == before[name]
    assert tuned["bytes"] == record["bytes"]
    assert tuned["repair"] == record["repair"]
    again = invoke("finetune", "a-finetuned", *arguments)
    assert again["finetuning"]["seed"] == 3
    Path("a/report.json").unlink()  # as it comes from the Hub
    bare = invoke("finetune", "local-dir:a", *arguments, "--out", "b")
    names = ("name", "kind", "shape", "method", "bytes", "codes")
    rows = [[row[name] for name in names] for row in tuned["layers"]]
    assert [[row[name] for name in names] for row in bare["layers"]] == rows
    assert bare["command"].startswith("vqzoo finetune a ")


def test_weights_other_than_the_compressed_ones_are_refused() -> None:
    model = timm.create_model("test_resnet")
    torch.save(model.state_dict(), "mine.pth")
    invoke("run", "test_resnet", "--checkpoint", "mine.pth", "-m", "km", "-o", "k=4", "--out", "a")
    arguments = ["finetune", "a", "--data", "imagefolder:pictures", "--epochs", "1"]
    result = CliRunner().invoke(app, arguments)
    assert "give --checkpoint" in result.stderr
    torch.save(timm.create_model("test_resnet").state_dict(), "other.pth")
    result = CliRunner().invoke(app, [*arguments, "--checkpoint", "other.pth"])
    assert "are not the ones that were compressed" in result.stderr
    invoke(*arguments, "--checkpoint", "mine.pth", "--out", "b")


def test_weights_that_no_record_or_tag_names_are_not_guessed() -> None:
    small = vqzoo.compress(timm.create_model("test_resnet"), "rtn")
    ((layer, code),) = [(one.layer, one.compressed) for one in small.layers]
    key, options, plugins = f"{layer.name}.weight", small.layers[0].options, installed_plugins()
    encoded = encode_layer(key, layer.shape, torch.float32, code, options, "bits", plugins)
    config = timm_config(small.module, {}, pretrained=True)
    config["pretrained_cfg"].pop("tag", None)
    Path("a").mkdir()
    write_artifact(Path("a"), small.module, [encoded], config, method="rtn", weights="pretrained")
    result = CliRunner().invoke(app, ["finetune", "a", "--data", "imagefolder:pictures"])
    assert result.exit_code == 2
    assert "does not record which weights of test_resnet were compressed" in result.stderr
    assert "--checkpoint" in result.stderr


def test_the_recorded_command_makes_the_same_request() -> None:
    arguments = ["run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", *TUNE,
             "--train", "norms", "--lr", "0.01", "--optimizer", "sgd", "--temperature", "3.0",
             "--alpha", "0.5", "--patience", "2", "--no-augment",
             "--train-images", "4"]  # fmt: skip
    record = invoke(*arguments, "--out", "a")
    words = record["command"].split()
    assert words[0] == "vqzoo"
    assert invoke(*words[1:], "--out", "b")["asked_sha256"] == record["asked_sha256"]
    plain = invoke("run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4",
                   "--out", "c")  # fmt: skip
    assert plain["asked_sha256"] != record["asked_sha256"]


def test_from_python(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=4).eval()
    small = vqzoo.compress(model, "pq", k=8, d=4)
    images = [torch.randn(4, 3, 64, 64) for _ in range(3)]
    better = vqzoo.finetune(small, images[:2], teacher=model, validation=images[2:], epochs=2)
    dense, before, after = model(images[2]), small(images[2]), better(images[2])
    assert (after - dense).norm() < (before - dense).norm()
    assert [one.options for one in better.layers] == [one.options for one in small.layers]
    better.save(tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(vqzoo.load(tmp_path / "a")(images[2]), after)
    with pytest.raises(vqzoo.errors.UsageError, match="no setting 'epoch'; it has: epochs"):
        vqzoo.finetune(small, images, teacher=model, epoch=2)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=4).eval()
    small = vqzoo.compress(model, "pq", k=8, d=4)
    images = [torch.randn(4, 3, 64, 64)]
    kept = tmp_path / "kept.pt"
    vqzoo.finetune(small, images, teacher=model, epochs=1, train="codebooks", checkpoint=kept)
    with pytest.raises(vqzoo.errors.VqzooError, match="another network or of other settings"):
        vqzoo.finetune(small, images, teacher=model, epochs=2, checkpoint=kept)


def test_an_invalid_recipe_is_refused_in_one_line() -> None:
    Path("r.yaml").write_text("model: test_resnet\nmethod: km\nfinetune: 5\n")
    result = CliRunner().invoke(app, ["run", "--recipe", "r.yaml", "--lr", "0.1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: finetune: ")


def test_compare_makes_every_point_twice() -> None:
    record = invoke(
        "compare", "test_resnet", "--weights", "random", "--methods", "km", "--ratios", "6",
        "--finetune", "1", "--train-data", "imagefolder:pictures", "--out", "both",
    )  # fmt: skip
    plain, tuned = record["points"]
    assert (plain["method"], tuned["method"]) == ("km", "km, fine-tuned")
    assert plain["ratio_layers"] == tuned["ratio_layers"]
    assert not same_bytes(f"both/{plain['folder']}", f"both/{tuned['folder']}")
    assert Path("both/compare.png").is_file()


def test_the_largest_ratio_within_a_loss() -> None:
    changes = [("pq", 8, -0.1), ("pq", 32, -0.9), ("pq", 48, -1.2), ("pq, fine-tuned", 48, -0.9)]
    points = [Point(m, r, r, 90.0, change, 0.1, 1.0, "") for m, r, change in changes]
    comparison = Comparison("model", "dense", "fmnist", 100, 91.0, points)
    assert largest_ratios(comparison, 1.0) == {"pq": 32, "pq, fine-tuned": 48}
