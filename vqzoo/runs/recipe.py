"""What was asked: one model, how to compress it, how to measure it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqzoo.artifact.files import canonical_json, sha256_file, sha256_text
from vqzoo.compression.selection import MethodChoice, TransformChoice
from vqzoo.errors import UsageError, invalid_field
from vqzoo.finetuning.settings import Finetuning
from vqzoo.plugin.text import parse_call

_Ratio = Annotated[float, Field(gt=1, le=10000)]
OptionValue = bool | int | float | str


class Step(BaseModel):
    """A transform and its options; as text `NAME:name=value,...`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    options: dict[str, OptionValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            name, options = parse_call(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return {"name": name, "options": options}

    def choice(self) -> TransformChoice:
        """What the core takes."""
        return TransformChoice(self.name, self.options)


class Rule(BaseModel):
    """A method for the layers that a selector text chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: str
    method: str
    options: dict[str, OptionValue] = {}
    ratio: _Ratio | None = None
    transforms: tuple[Step, ...] = ()

    def choice(self) -> MethodChoice:
        """The method with its options."""
        steps = tuple(step.choice() for step in self.transforms)
        return MethodChoice(self.method, self.options, self.ratio, steps)


class Recipe(BaseModel):
    """Everything that decides what an artifact holds and what its record says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    weights: Literal["pretrained", "random"] = "pretrained"
    checkpoint: Path | None = None
    model_args: dict[str, OptionValue] = {}
    method: str | None = None
    options: dict[str, OptionValue] = {}
    ratio: _Ratio | None = None
    transforms: tuple[Step, ...] = ()
    layers: tuple[str, ...] = ("dense",)
    rules: tuple[Rule, ...] = ()
    packing: str = "bits"
    data: str | None = None
    images: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)
    device: str = "cpu"
    calibrate: str | None = None
    repair: str | None = None
    calibration_images: int = Field(512, ge=1)
    finetune: Finetuning | None = None
    dense: bool = False
    plugins: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _something_to_do(self) -> "Recipe":
        if self.method is None and not self.rules:
            raise ValueError("give a method (--method NAME) or rules: `vqzoo methods` lists them")
        if self.method is None and (self.options or self.ratio or self.transforms):
            raise ValueError("options, ratio and transforms belong to a method: give --method")
        if self.checkpoint is not None and self.weights == "random":
            raise ValueError("give a checkpoint or random weights, not both")
        if self.repair is not None and self.finetune is not None:
            raise ValueError("fine-tuning does what repair does, and more: leave repair out")
        return self

    @property
    def label(self) -> str:
        """The method in one word, for names and records."""
        named = [self.method, *(rule.method for rule in self.rules)]
        methods = {name.rpartition(":")[2] for name in named if name is not None}
        if len(methods) == 1:
            return methods.pop()
        return "mixed"

    def choice(self) -> MethodChoice | None:
        """The method for the selected layers."""
        if self.method is None:
            return None
        steps = tuple(step.choice() for step in self.transforms)
        return MethodChoice(self.method, self.options, self.ratio, steps)


def make_recipe(fields: Mapping[str, Any]) -> Recipe:
    """Validate what was asked.

    Raises:
        UsageError: one line that names the field.
    """
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise UsageError(first_problem(error)[1]) from None


def first_problem(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """The path to the first problem in a recipe, and a line that names it."""
    field = invalid_field(error)
    text = field.reason
    if field.unknown:
        known: dict[Any, type[BaseModel]] = {
            "rules": Rule,
            "transforms": Step,
            "finetune": Finetuning,
        }
        holder = next((known[p] for p in reversed(field.path[:-1]) if p in known), Recipe)
        fields = holder.model_fields
        text = f"unknown; there are: {', '.join(fields)}"
    return field.path, f"{field.name}: {text}" if field.name else text


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields of a recipe file (YAML).

    Raises:
        UsageError: the file cannot be read, or is not a mapping.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"recipe {path} is not a mapping of fields such as model and method")
    return fields


def parse_rule(text: str) -> Rule:
    """Read `LAYERS=METHOD[:name=value,...]`, as in `features.*=km:k=256,scale=row`.

    Transforms stand before the method, joined by +: `LAYERS=row-peaks:floor=0.1+km:k=256`.

    Raises:
        UsageError: it is not of that form.
    """
    layers, equals, rest = text.partition("=")
    if not (layers and equals and rest):
        raise UsageError(f"rule {text!r}: write LAYERS=METHOD:name=value, as in 'conv=km:k=256'")
    *steps, last = rest.split("+")
    method, given = parse_call(last)
    ratio = given.pop("ratio", None)
    fields = {"layers": layers, "method": method, "options": given, "ratio": ratio}
    try:
        return Rule(**fields, transforms=tuple(steps))
    except ValidationError as error:
        raise UsageError(f"rule {text!r}: {first_problem(error)[1]}") from None


def recipe_hash(recipe: Recipe, model: str, weights_sha256: str, plugins: Mapping[str, str]) -> str:
    """A hash of what was asked, with the name, the weights and the plugins' versions that it
    came to."""
    fields = recipe.model_dump(mode="json", exclude={"checkpoint", "plugins"})
    fields |= {"model": model, "weights_sha256": weights_sha256, "versions": dict(plugins)}
    if recipe.plugins:
        fields["plugins"] = [sha256_file(path) for path in recipe.plugins]
    return sha256_text(canonical_json(fields))
