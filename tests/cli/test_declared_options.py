"""Options that settings declare: from the command line to the settings, and back."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.budget.settings import BudgetSettings
from vqzoo.cli.main import app
from vqzoo.command_options import declared_options
from vqzoo.errors import UsageError
from vqzoo.finetuning.settings import Finetuning
from vqzoo.runs.command_line import canonical_command, finetune_command
from vqzoo.runs.finetune_request import FinetuneRequest
from vqzoo.runs.recipe import Recipe, make_recipe, parse_rule

# No field has its default; the paths have no folders, which a canonical command leaves out.
FINETUNING = {
    "epochs": 3,
    "data": "imagefolder:train",
    "train": "norms",
    "optimizer": "sgd",
    "lr": 0.5,
    "temperature": 3.0,
    "alpha": 0.25,
    "batch_size": 8,
    "patience": 2,
    "images": 40,
    "augment": False,
}
RECIPE = {
    "model": "test_resnet",
    "checkpoint": Path("mine.pth"),
    "model_args": {"num_classes": 3, "global_pool": "max"},
    "method": "pq",
    "options": {"k": "16", "d": "4"},
    "ratio": 12.5,
    "transforms": ["prune:density=0.5", "row-peaks"],
    "layers": ("all", "!fc"),
    "rules": (parse_rule("conv1=prune:density=0.1+km:k=4,ratio=8"), parse_rule("fc=rtn")),
    "packing": "ans",
    "rest": "float16",
    "fold_norms": True,
    "layout": "compact",
    "data": "imagefolder:val",
    "images": 7,
    "class_map": Path("classes.txt"),
    "skip_unreadable": True,
    "calibrate": "fmnist",
    "calibration_images": 9,
    "finetune": FINETUNING,
    "seed": 5,
    "device": "cuda",
    "plugins": (Path("a.py"), Path("b.py")),
    "dense": True,
}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands ask the core to do; nothing is done."""
    requests: list[Any] = []

    def refuse(request: Any, *_: object, **__: object) -> None:
        requests.append(request)
        raise UsageError("not in this test")

    monkeypatch.setattr("vqzoo.runs.run.run", refuse)
    monkeypatch.setattr("vqzoo.runs.finetune_artifact.finetune_artifact", refuse)
    return requests


def call(command: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*shlex.split(command)[1:], *arguments])
    return result.stderr


@pytest.mark.parametrize(
    "change",
    [
        {},
        # What excludes others of the fields above.
        {"checkpoint": None, "weights": "random"},
        {"finetune": None, "repair": "imagefolder:train"},
        {"finetune": None, "recover": True},
        {"sequential": True},
        {"ratio": None, "size": "2.3MB"},
        {"ratio": None, "price": 2.5e-7, "layers": ("dense",)},
        {"ratio": None, "finetune": None, "max_kl": 0.02, "held_out_images": 70},
        {"ratio": None, "finetune": None, "max_drop": 1.5, "layers": ("all",)},
    ],
)
def test_a_canonical_command_sets_every_field_of_a_recipe(
    change: dict[str, Any], requests: list[Any]
) -> None:
    recipe = make_recipe(RECIPE | change)
    assert call(canonical_command(recipe, recipe.model), "--device", "cuda").startswith(
        "error: not"
    )
    assert requests == [recipe]


def test_these_recipes_leave_no_field_at_its_default() -> None:
    fields = {*RECIPE, *BudgetSettings.model_fields, "weights", "repair", "recover", "sequential"}
    assert fields == set(Recipe.model_fields)
    assert set(FINETUNING) == set(Finetuning.model_fields)
    defaults = {name: field.default for name, field in Recipe.model_fields.items()}
    assert not [name for name, value in RECIPE.items() if value == defaults[name]]


def test_a_canonical_command_sets_every_field_of_a_fine_tuning(requests: list[Any]) -> None:
    request = FinetuneRequest(
        source="a",
        settings=Finetuning(**FINETUNING),
        teacher="resnet18",
        checkpoint=Path("mine.pth"),
        data="imagefolder:val",
        images=7,
        class_map=Path("classes.txt"),
        skip_unreadable=True,
        seed=5,
        device="cuda",
        plugins=(Path("a.py"),),
    )
    assert not [
        name
        for name, field in FinetuneRequest.model_fields.items()
        if getattr(request, name) == field.default
    ]
    call(finetune_command(request, None), "--device", "cuda")
    assert requests == [request]


def test_defaults_are_not_written() -> None:
    plain = make_recipe({"model": "m", "method": "pq", "finetune": {}})
    assert canonical_command(plain, "m.tag") == "vqzoo run m.tag --method pq --finetune 10"
    request = FinetuneRequest(source="org/name", settings=Finetuning())
    assert finetune_command(request, None) == "vqzoo finetune org/name --epochs 10"


def test_no_folder_of_this_machine_is_written() -> None:
    local = {
        "checkpoint": "/home/me/mine.pth",
        "data": "imagefolder:/home/me/val",
        "calibrate": "fmnist:/home/me/fashion",
        "plugins": ["/home/me/a.py"],
        "finetune": {"data": "imagefolder:/home/me/train"},
    }
    recipe = make_recipe({"model": "m", "method": "pq", **local})
    command = canonical_command(recipe, "m")
    assert "/home" not in command
    for name in ("mine.pth", "imagefolder:val", "fmnist:fashion", "a.py", "imagefolder:train"):
        assert name in command.split()


def test_an_option_replaces_a_recipes_field_even_with_the_default(
    requests: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: m\nmethod: km\nseed: 7\ndense: true\noptions: {k: 4}\n"
        "finetune: {epochs: 2, lr: 0.1}\n"
    )
    call(f"vqzoo run --recipe {path} --seed 0 -o d=2 --lr 0.2")
    (recipe,) = requests
    assert (recipe.seed, recipe.dense, recipe.options) == (0, True, {"d": "2"})
    assert recipe.finetune == Finetuning(epochs=2, lr=0.2)


def test_help_states_every_declared_option_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(app, ["run", "--help"]).stdout
    lines = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│ --")}
    for declared in declared_options(Recipe):
        option = declared.option
        flag = next(name for name in (option.flag, option.alias) if name and name[:2] == "--")
        assert option.help in lines[flag]
    assert "default: 512" in lines["--calibration-images"]
    assert "default: dense" in lines["--layers"]
    assert "default: 0.002" in lines["--lr"]
    assert "default: no fine-tuning" in lines["--finetune"]
    assert "default" not in lines["--no-augment"]
