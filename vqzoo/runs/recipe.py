"""The recipe of a run: one model, how to compress it, how to measure it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from vqzoo.artifact.schema import Layout, Rest
from vqzoo.budget.settings import BUDGET_REST, BudgetSettings
from vqzoo.command_options import CommandOption, OptionGroup, public_data_name
from vqzoo.errors import UsageError, invalid_field
from vqzoo.finetuning.settings import Finetuning
from vqzoo.plugin.text import json_value_text, parse_json_pairs, parse_methods, parse_option_pairs
from vqzoo.runs.fields.reading import ClassMapFile, SkipUnreadable, check_class_map
from vqzoo.runs.fields.rules import (
    MethodNames,
    OptionValue,
    Ratio,
    Rule,
    Step,
    check_options_of_one_method,
    method_choice,
    parse_rule,
)
from vqzoo.runs.fields.shared import Device, MeasuredImages, Seed

if TYPE_CHECKING:
    from vqzoo.compression.selection import MethodChoice


NO_IMAGES = "none"  # of `calibrate`: no images, even if some come with the network


def split_selectors(texts: list[str]) -> tuple[str, ...]:
    """Selectors joined by commas, given one by one, or both."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _ratio_text(ratio: float) -> str:
    return repr(ratio).removesuffix(".0")


class Recipe(BudgetSettings, BaseModel):
    """Everything that decides what an artifact holds and what its record says.

    The fields stand in the order of the canonical command, behind those of the budget.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    checkpoint: Annotated[
        Path | None,
        CommandOption(
            "--checkpoint",
            help="Weights to compress: .safetensors, or a state dict saved by torch.",
            default="the pretrained weights",
            panel="Model",
        ),
    ] = None
    weights: Annotated[
        Literal["pretrained", "random"],
        CommandOption(
            "--weights",
            help="pretrained or random (to try things out; never publishable).",
            panel="Model",
        ),
    ] = "pretrained"
    model_args: Annotated[
        dict[str, JsonValue],
        CommandOption(
            "--model-arg",
            help="An argument for timm.create_model: num_classes=10, act_layer=silu, "
            "img_size=[96,128], dynamic_img_size=true; repeatable.",
            metavar="NAME=VALUE",
            panel="Model",
            read=parse_json_pairs,
            write=json_value_text,
        ),
    ] = {}
    method: Annotated[
        MethodNames | None,
        CommandOption(
            "--method",
            "-m",
            help="A method; `vqzoo methods` lists them. Under a budget, several joined by commas: "
            "each layer gets the one that suits it best.",
            default="under a budget those that know its price",
            metavar="NAME[,NAME...]",
        ),
    ] = None
    options: Annotated[
        dict[str, OptionValue],
        CommandOption(
            "-o",
            "--option",
            help="An option of the method; repeatable.",
            metavar="NAME=VALUE",
            read=parse_option_pairs,
        ),
    ] = {}
    ratio: Annotated[
        Ratio | None,
        CommandOption(
            "--ratio",
            help="Let the method choose its options for each layer so that the layer shrinks by "
            "this factor, codebooks counted.",
            default="16 where no option is given either",
            write=_ratio_text,
        ),
    ] = None
    transforms: Annotated[
        tuple[Step, ...],
        CommandOption(
            "--transform",
            help="A transform before the method, undone after it; repeatable, the first one runs "
            "first.",
            metavar="NAME[:NAME=VALUE,...]",
        ),
    ] = ()
    layers: Annotated[
        tuple[str, ...],
        CommandOption(
            "--layers",
            help="dense, conv, all, largest:N, or names and patterns ('classifier.*'); joined by "
            "commas or repeated; a leading ! excludes.",
            default="dense; all under a budget",
            implied=lambda recipe: ("all",) if recipe.budget else ("dense",),
            metavar="SELECTOR",
            read=split_selectors,
            write=",".join,
        ),
    ] = ("dense",)
    rules: Annotated[
        tuple[Rule, ...],
        CommandOption(
            "--rule",
            help="Another method for some layers, as in 'features.*=km:k=256'; transforms stand "
            "before the method, joined by +. Repeatable; the last rule that matches wins.",
            metavar="SELECTOR=METHOD[:NAME=VALUE,...]",
            read=lambda texts: tuple(parse_rule(text) for text in texts),
        ),
    ] = ()
    packing: Annotated[
        str | None,
        CommandOption(
            "--packing",
            help="How codes become bytes: bits, huffman, ans, context.",
            default="the method's own, mostly bits",
        ),
    ] = None
    rest: Annotated[
        Rest | None,
        CommandOption(
            "--rest",
            help="How tensors that stay dense (norms, biases, skipped layers) are stored: float32, "
            "or float16 where it keeps their values to within 0.05% of the largest.",
            default="float32; float16 under a budget",
        ),
    ] = None
    fold_norms: Annotated[
        bool,
        CommandOption(
            "--fold-norms",
            help="Fold batch norms into the layers before them, and store a shift for each channel "
            "instead of four numbers; norms that follow no layer keep a scale, too.",
        ),
    ] = False
    layout: Annotated[
        Layout | None,
        CommandOption(
            "--layout",
            help="How the file is laid out: plain, which older versions of vqzoo and any "
            "safetensors reader understand, or compact, whose header is compressed.",
            default="plain; compact under a budget and with --fold-norms",
        ),
    ] = None
    data: Annotated[
        str | None,
        CommandOption(
            "--data",
            help="What to measure on: fmnist (embedded), imagefolder:PATH, or a timm data set.",
            default="the model's own, where vqzoo ships it",
            write=public_data_name,
        ),
    ] = None
    images: MeasuredImages = None
    class_map: ClassMapFile = None
    skip_unreadable: SkipUnreadable = False
    calibrate: Annotated[
        str | None,
        CommandOption(
            "--calibrate",
            help="Weight errors by what they do to the answers on some training images, without "
            "labels: fmnist, fmnist:FOLDER, imagefolder:PATH, a timm data set (its split train), "
            "none.",
            default="none; under a budget the images that come with the network",
            metavar="DATA",
            panel="Calibration",
            write=public_data_name,
        ),
    ] = None
    sequential: Annotated[
        bool,
        CommandOption(
            "--sequential",
            help="Calibrate each layer on what it sees behind the layers compressed before it, "
            "instead of what it sees in the dense model. Under a budget, at the price found.",
            panel="Calibration",
        ),
    ] = False
    repair: Annotated[
        str | None,
        CommandOption(
            "--repair",
            help="Correct biases and batch norm statistics afterwards, on such images, without "
            "labels.",
            metavar="DATA",
            panel="Calibration",
            write=public_data_name,
        ),
    ] = None
    recover: Annotated[
        bool,
        CommandOption(
            "--recover",
            help="Learn the dense model's answers again, on the images of --calibrate without "
            "labels: all that is stored as floats moves, and the size stays. Some images are held "
            "out and decide what is kept.",
            panel="Calibration",
        ),
    ] = False
    calibration_images: Annotated[
        int,
        Field(ge=1),
        CommandOption(
            "--calibration-images",
            help="How many images each of the three takes.",
            panel="Calibration",
        ),
    ] = 512
    finetune: Annotated[
        Finetuning | None,
        OptionGroup(
            {
                "epochs": {"flag": "--finetune", "default": "no fine-tuning"},
                "data": {"flag": "--train-data"},
            }
        ),
    ] = None
    seed: Seed = 0
    device: Device = "cpu"
    plugins: Annotated[
        tuple[Path, ...],
        CommandOption(
            "--plugin",
            help="A plugin in a single file; repeatable. What it makes loads only with the file "
            "given again, and cannot be published.",
            metavar="FILE.py",
        ),
    ] = ()
    dense: Annotated[
        bool, CommandOption("--dense", help="Also write the decoded weights, for plain timm.")
    ] = False

    @model_validator(mode="after")
    def _something_to_do(self) -> "Recipe":
        self.check_beside(ratio=self.ratio is not None, finetune=self.finetune is not None)
        if self.method is not None:
            check_options_of_one_method(self.method, options=self.options, ratio=self.ratio)
        if self.budget is None and (several := [name for name in self._named if "," in name]):
            raise ValueError(
                f"{several[0]}: it takes a budget to choose between methods: give --size 2.3MB, or "
                "one method"
            )
        if self.method is None and not self.rules and self.budget is None:
            raise ValueError(
                "give a method (--method NAME; `vqzoo methods` lists them), rules, or a size "
                "(--size 2.3MB)"
            )
        if self.method is None and (self.options or self.ratio or self.transforms):
            raise ValueError("options, ratio and transforms belong to a method: give --method")
        if self.checkpoint is not None and self.weights == "random":
            raise ValueError("give a checkpoint or random weights, not both")
        if self.repair is not None and self.finetune is not None:
            raise ValueError("fine-tuning does what repair does, and more: leave repair out")
        if self.recover and (self.repair is not None or self.finetune is not None):
            raise ValueError(
                "recovery does what repair does, and more; fine-tuning does it on many images: "
                "give one of the three"
            )
        training = None if self.finetune is None else self.finetune.data
        labelled = self.calibrate if self.max_drop is not None else None
        check_class_map(self.class_map, self.data, training, labelled)
        return self

    @property
    def label(self) -> str:
        """The method in one word, for names and records."""
        return method_label(name for text in self._named for name in parse_methods(text))

    @property
    def _named(self) -> list[str]:
        """The methods of the recipe and its rules, as they are written."""
        named = [self.method, *(rule.method for rule in self.rules)]
        return [text for text in named if text is not None]

    @property
    def rest_dtype(self) -> Rest:
        """How tensors that stay dense are stored."""
        return self.rest or ("float32" if self.budget is None else BUDGET_REST)

    @property
    def file_layout(self) -> Layout:
        """How the weights file is laid out."""
        compact = self.budget is not None or self.fold_norms
        return self.layout or ("compact" if compact else "plain")

    def choice(self) -> "MethodChoice | None":
        """The method for the selected layers."""
        if self.method is None:
            return None
        return method_choice(self.method, self.options, self.ratio, self.transforms)


def method_label(methods: Iterable[str]) -> str:
    """The name that all methods have, or "mixed"."""
    names = {name.rpartition(":")[2] for name in methods}
    return names.pop() if len(names) == 1 else "mixed"


def make_recipe(fields: Mapping[str, Any]) -> Recipe:
    """Validate the fields of a recipe.

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
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"recipe {path} is not a mapping of fields such as model and method")
    return fields
