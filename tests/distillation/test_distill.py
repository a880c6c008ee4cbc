"""`vqzoo distill` and `vqzoo.distill`: what they write, repeat, resume and refuse."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.distillation.settings import Distillation
from vqzoo.errors import UsageError, VqzooError
from vqzoo.progress import SilentWatcher, TrainingSteps
from vqzoo.runs.distill.distill_network import distill_network
from vqzoo.runs.distill.request import DistillRequest, distill_command

CLASSES = 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a teacher's weights, and pictures with and without class folders."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("plain", "classes/a", "classes/b", "classes/c"):
        Path(name).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{name}/{i}.png")
    torch.manual_seed(3)
    teacher = timm.create_model("test_resnet", num_classes=CLASSES)
    nn.init.normal_(teacher.fc.weight)  # answers that differ between images
    save_file(teacher.state_dict(), "teacher.safetensors")
    return tmp_path


TEACHER = [
    "--teacher", "test_resnet", "--teacher-checkpoint", "teacher.safetensors",
    "--teacher-arg", f"num_classes={CLASSES}",
]  # fmt: skip
STUDENT = [
    "test_resnet", "--weights", "random", "--image-size", "32", "--model-arg", "drop_rate=0.3",
    "--model-arg", "channels=[8,8,16,16]",
]  # fmt: skip
VIT = [
    "test_vit", "--weights", "random", "--model-arg", "img_size=[32,40]", "--model-arg",
    "patch_size=8",
]  # fmt: skip
TRAINING = ["--train-data", "imagefolder:classes", "--batch-size", "4", "--epochs", "3"]


def invoke(*arguments: str) -> dict:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> str:
    """The line with which a request is refused before anything is written."""
    before = set(Path().rglob("*"))
    result = CliRunner().invoke(app, ["distill", *arguments, "--out", "refused"])
    assert result.exit_code == 2, result.output
    assert set(Path().rglob("*")) == before
    *_, line = result.stderr.splitlines()  # behind what the class folders mean
    return line


def same_bytes(one: str, two: str) -> bool:
    return all(
        Path(one, name).read_bytes() == Path(two, name).read_bytes()
        for name in ("model.safetensors", "config.json")
    )


def request(**fields: object) -> DistillRequest:
    return DistillRequest(
        student="test_resnet",
        teacher="test_resnet",
        settings=Distillation(epochs=3, data="imagefolder:classes", batch_size=4),
        weights="random",
        image_size=32,
        model_args={"drop_rate": 0.3, "channels": [8, 8, 16, 16]},
        teacher_checkpoint=Path("teacher.safetensors"),
        teacher_args={"num_classes": CLASSES},
        **fields,
    )


class Dies(SilentWatcher):
    """Interrupts training in the middle of epoch number `epoch`."""

    def __init__(self, epoch: int) -> None:
        self.epochs, self.epoch = 0, epoch

    @contextmanager
    def training(self, text: str) -> Iterator[TrainingSteps]:
        self.epochs += 1

        def show(done: int, total: int | None, reached: str) -> None:
            if self.epochs == self.epoch:
                raise KeyboardInterrupt

        yield show


def test_an_interrupted_distillation_resumes_with_the_same_bytes() -> None:
    """Dropout, batch norms and augmentation draw and gather as in an uninterrupted run."""
    record = invoke("distill", *STUDENT, *TEACHER, *TRAINING, "--out", "whole")
    assert [epoch["epoch"] for epoch in record["history"]] == [0, 1, 2, 3]
    losses = [epoch["validation_loss"] for epoch in record["history"]]
    assert losses[record["best_epoch"]] == min(losses)
    with pytest.raises(KeyboardInterrupt):
        distill_network(request(), Dies(3), out=Path("broken"))
    assert not Path("broken").exists()
    left = Dies(99)
    distill_network(request(), left, out=Path("broken"))
    assert left.epochs == 1
    assert same_bytes("whole", "broken")
    distill_network(request(seed=1), SilentWatcher(), out=Path("other"))
    assert not same_bytes("whole", "other")
    again = CliRunner().invoke(app, ["distill", *STUDENT, *TEACHER, *TRAINING, "--out", "whole"])
    assert (again.exit_code, "--force" in again.stderr) == (2, True)


def test_an_interruption_before_the_first_epoch_leaves_nothing() -> None:
    before = set(Path().iterdir())
    with pytest.raises(KeyboardInterrupt):
        distill_network(request(), Dies(1), out=Path("broken"))
    assert set(Path().iterdir()) == before


def test_the_folder_opens_in_timm_and_in_vqzoo() -> None:
    record = invoke(
        "distill", *STUDENT, *TEACHER, *TRAINING, "--eval-data", "imagefolder:classes", "--out", "s"
    )
    assert record["labelled"] is True
    assert record["accuracy"]["images"] == 15
    model = timm.create_model("local-dir:s", pretrained=True).eval()
    assert model.num_classes == CLASSES
    assert timm.data.resolve_model_data_config(model)["input_size"] == [3, 32, 32]
    assert sum(p.numel() for p in model.parameters()) == record["student"]["parameters"]
    measured = invoke("eval", "local-dir:s", "--data", "imagefolder:classes")
    assert measured["top1"] == record["accuracy"]["student"]["top1"]
    artifact = invoke(
        "run", "local-dir:s", "-m", "rtn", "-o", "format=int8", "--layers", "all",
        "--data", "imagefolder:classes", "--out", "a",
    )  # fmt: skip
    assert artifact["bytes"]["file"] < record["student"]["bytes"]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(vqzoo.load("a")(images), model(images), atol=0.2)
    card = Path("s/README.md").read_text()
    assert record["command"] in card
    assert "--teacher-checkpoint teacher.safetensors" in record["command"]
    result = CliRunner().invoke(app, ["eval", "s", "--data", "imagefolder:classes"])
    assert (result.exit_code, "local-dir:s" in result.stderr) == (2, True)


def test_a_vision_transformer_learns_without_labels() -> None:
    record = invoke(
        "distill", *VIT, *TEACHER, "--train-data", "imagefolder:plain", "--epochs", "4",
        "--batch-size", "2", "--out", "s",
    )  # fmt: skip
    assert (record["labelled"], record["label_weight"], record["accuracy"]) == (False, 0.0, None)
    assert record["history"][4]["loss"] < record["history"][1]["loss"]
    model = timm.create_model("local-dir:s", pretrained=True).eval()
    assert model(torch.zeros(1, 3, 32, 40)).shape == (1, CLASSES)
    text = refused(*VIT, *TEACHER, "--train-data", "imagefolder:plain", "--label-weight", "1")
    assert "no labels to learn from" in text


def test_an_artifact_teaches_and_learns(artifact: Path) -> None:
    """The teacher is an artifact of 1,000 classes; the student has them, too."""
    arguments = ["--train-data", "imagefolder:plain", "--epochs", "1", "--batch-size", "2"]
    record = invoke("distill", *VIT, "--teacher", "artifact", *arguments, "--out", "s")
    assert record["teacher"]["weights"] == "artifact"
    assert json.loads(Path("s/config.json").read_text())["num_classes"] == 1000
    assert "--teacher artifact" in record["command"]
    taught = invoke("distill", "artifact", "--teacher", "local-dir:s", *arguments, "--out", "t")
    assert taught["student"]["weights"] == "artifact"
    assert taught["lr"] == record["lr"] / 10
    assert "has 1000 classes" in refused("artifact", *TEACHER, *arguments)
    text = refused(*VIT, "--teacher", "artifact", "--teacher-checkpoint", "teacher.safetensors")
    assert "leave out --teacher-checkpoint" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*STUDENT, "--model-arg", "num_classes=4"], "the teacher test_resnet has 3 classes"),
        ([*VIT, "--image-size", "64"], "--model-arg img_size=64"),
        (["test_vitt"], "there is no model 'test_vitt'"),
        ([*STUDENT, "--batch-size", "1"], "at least 2 images per step"),
        ([*STUDENT, "--checkpoint", "teacher.safetensors"], "not both"),
        ([*STUDENT, "--image-size", "1", "--model-arg", "in_chans=2"], "2 channels"),
        ([*STUDENT, "--eval-data", "imagefolder:plain"], "no labels to measure by"),
        ([*STUDENT, "--train-data", "fmnist"], "fmnist has 10 classes, the model 3"),
    ],
    ids=["classes", "size", "name", "batch", "weights", "channels", "measured", "data"],
)
def test_what_does_not_fit_is_refused(arguments: list[str], reason: str) -> None:
    data = [] if "--train-data" in arguments else ["--train-data", "imagefolder:classes"]
    assert reason in refused(*arguments, *TEACHER, *data)


def test_a_grey_teacher_has_a_grey_student_and_names_its_classes() -> None:
    record = invoke(
        "distill", "test_resnet", "--weights", "random", "--teacher", "alexnet_mini.fmnist",
        "--train-images", "64", "--epochs", "1", "--images", "100", "--out", "s",
    )  # fmt: skip
    assert record["accuracy"]["data"] == "fmnist"
    assert record["data"].startswith("fmnist, 64 training images")
    config = json.loads(Path("s/config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [1, 28, 28]
    assert config["pretrained_cfg"]["label_names"][1] == "Trouser"
    assert config["pretrained_cfg"]["mean"] == [0.286]


# The Python function


def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    x = torch.randn(6, 8, 3, 32, 32)
    return [(one, torch.arange(8) % CLASSES) for one in x]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(2)
    teacher = timm.create_model("test_resnet", num_classes=CLASSES)
    nn.init.normal_(teacher.fc.weight)
    student = timm.create_model("test_resnet", num_classes=CLASSES, channels=(8, 8, 16, 16))
    return student.eval(), teacher.eval()


def divergence(student: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        answers = student(images).log_softmax(1), teacher(images).log_softmax(1)
    return float(nn.functional.kl_div(*answers, reduction="batchmean", log_target=True))


def test_distill_teaches_a_copy_of_any_module() -> None:
    student, teacher = networks()
    given = batches()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    taught = vqzoo.distill(
        student, given[:-1], teacher=teacher, validation=given[-1:], random=True, epochs=4,
        label_weight=0,
    )  # fmt: skip
    assert torch.equal(torch.rand(1), expected)  # torch's global random state is as before
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    images = given[-1][0]
    assert divergence(taught, teacher, images) < 0.7 * divergence(student, teacher, images)
    assert not taught.training
    small = vqzoo.compress(taught, "rtn", layers="all", format="int8")
    small.save("a")


def test_every_weight_learns_and_batch_norms_gather_statistics() -> None:
    student, teacher = networks()
    taught = vqzoo.distill(student, batches(), teacher=teacher, random=True, epochs=1)
    before, after = student.state_dict(), taught.state_dict()
    assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_labels_alone_need_no_teacher() -> None:
    """With all weight on the labels, any teacher gives the same student."""
    student, teacher = networks()
    other = networks()[0]
    taught = [
        vqzoo.distill(student, batches(), teacher=one, epochs=1, label_weight=1).state_dict()
        for one in (teacher, other)
    ]
    assert all(torch.equal(taught[0][key], taught[1][key]) for key in taught[0])


def test_other_classes_and_unknown_settings_are_refused() -> None:
    student, teacher = networks()
    with pytest.raises(UsageError, match=r"distillation has no setting 'train'; it has: epochs"):
        vqzoo.distill(student, batches(), teacher=teacher, train="all")
    teacher.reset_classifier(7)
    with pytest.raises(VqzooError, match="the teacher has 7 classes, the student 3"):
        vqzoo.distill(student, batches(), teacher=teacher)
    with pytest.raises(UsageError, match="omit validation"):
        vqzoo.distill(student, "imagefolder:plain", teacher=student, validation=batches())


def test_a_command_sets_every_field_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[DistillRequest] = []

    def refuse(request: DistillRequest, *_: object, **__: object) -> None:
        requests.append(request)
        raise UsageError("not in this test")

    monkeypatch.setattr("vqzoo.runs.distill.distill_network.distill_network", refuse)
    settings = Distillation(
        epochs=3, data="imagefolder:train", label_weight=0.5, optimizer="sgd", lr=0.25,
        weight_decay=0.125, temperature=3.0, batch_size=8, patience=2, images=40, augment=False,
    )  # fmt: skip
    fields = {
        "student": "test_resnet", "teacher": "test_vit", "settings": settings,
        "weights": "random", "model_args": {"channels": [8, 8]}, "image_size": 32,
        "teacher_checkpoint": Path("t.pth"), "teacher_args": {"img_size": 32},
        "data": "imagefolder:val", "measured_images": 7, "class_map": Path("classes.txt"),
        "skip_unreadable": True, "seed": 5, "device": "cuda", "plugins": (Path("a.py"),),
    }  # fmt: skip
    assert {*fields, "checkpoint"} == set(DistillRequest.model_fields)
    for change in ({}, {"weights": "pretrained", "checkpoint": Path("mine.pth")}):
        asked = DistillRequest(**(fields | change))
        words = distill_command(asked).split(" ", 1)[1]
        CliRunner().invoke(app, [*shlex.split(words), "--device", "cuda"])
        assert requests.pop() == asked
