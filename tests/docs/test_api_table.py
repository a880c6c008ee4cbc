"""docs/compress.md sets the command line and Python side by side, and leaves nothing out."""

import inspect
import re
from pathlib import Path

import typer

import vqzoo
from vqzoo.cli.main import app
from vqzoo.finetuning.settings import Finetuning
from vqzoo.runs.recipe import Recipe

PAGE = Path(vqzoo.__file__).parents[1] / "docs" / "compress.md"
FUNCTIONS = {
    "compress": vqzoo.compress,
    "evaluate": vqzoo.evaluate,
    "finetune": vqzoo.finetune,
    "push": vqzoo.push,
    "save": vqzoo.CompressedModel.save,
}


def columns() -> tuple[str, str]:
    """All cells of the table under `vqzoo run`, and all cells under Python."""
    rows = re.findall(r"^\|[^|]*\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert rows[0] == (" `vqzoo run` ", " Python ")
    return "\n".join(row[0] for row in rows), "\n".join(row[1] for row in rows)


def parameters(name: str) -> set[str]:
    """The arguments of a public function."""
    names = set(inspect.signature(FUNCTIONS[name]).parameters)
    return names | set(Finetuning.model_fields) if name == "finetune" else names


def test_the_table_has_every_option_of_vqzoo_run() -> None:
    (run,) = (c for name, c in typer.main.get_command(app).commands.items() if name == "run")
    options = {max(p.opts, key=len) for p in run.params if p.param_type_name == "option"}
    listed = re.findall(r"--[a-z][a-z-]*", columns()[0])
    assert sorted(listed) == sorted(options - {"--help"})


def test_the_table_has_every_argument_of_compress_and_no_other() -> None:
    listed: dict[str, set[str]] = {}
    for name, argument in re.findall(r"`(\w+)\(\**(\w+)=?\)`", columns()[1]):
        listed.setdefault(name, set()).add(argument)
    assert listed.keys() == FUNCTIONS.keys()
    for name, arguments in listed.items():
        assert arguments <= parameters(name), name
    assert listed["compress"] == parameters("compress") - {"model"}
    assert listed["finetune"] - {"validation"} == set(Finetuning.model_fields)
    assert listed["save"] == parameters("save") - {"self", "model_args"}


def test_defaults_agree() -> None:
    signature = inspect.signature(vqzoo.compress)
    for name in ("ratio", "seed", "device", "calibrate", "repair", "calibration_images"):
        assert signature.parameters[name].default == Recipe.model_fields[name].default, name
    # Which layers follows from the budget on both sides; see `BudgetSettings`.
    assert signature.parameters["layers"].default is None
    for name in ("size", "max_kl", "max_drop", "held_out_images"):
        assert signature.parameters[name].default == Recipe.model_fields[name].default, name
    packing = inspect.signature(vqzoo.CompressedModel.save).parameters["packing"].default
    assert packing == Recipe.model_fields["packing"].default
