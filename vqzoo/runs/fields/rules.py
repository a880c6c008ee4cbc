"""Methods and transforms as users write them: in a recipe's fields, or as text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqzoo.errors import UsageError, invalid_field
from vqzoo.plugin.text import parse_call, parse_methods

if TYPE_CHECKING:  # torch comes with it, and `vqzoo run --help` does without
    from vqzoo.compression.selection import MethodChoice, TransformChoice


def _canonical_methods(text: str) -> str:
    try:
        return ",".join(parse_methods(text))
    except UsageError as error:
        raise ValueError(str(error)) from None


Ratio = Annotated[float, Field(gt=1, le=10000)]
# The name of a method, or several joined by commas, of which a budget chooses for each layer.
MethodNames = Annotated[str, AfterValidator(_canonical_methods)]
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

    def __str__(self) -> str:
        """The text that reads as this step."""
        return call_text(self.name, self.options)

    def choice(self) -> "TransformChoice":
        """The transform as the compression package takes it."""
        from vqzoo.compression.selection import TransformChoice

        return TransformChoice(self.name, self.options)


class Rule(BaseModel):
    """A method for the layers that a selector chooses; see `parse_rule` for its text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: str
    method: MethodNames
    options: dict[str, OptionValue] = {}
    ratio: Ratio | None = None
    transforms: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _options_of_one_method(self) -> "Rule":
        check_options_of_one_method(self.method, options=self.options, ratio=self.ratio)
        return self

    def __str__(self) -> str:
        """The text that reads as this rule."""
        options = self.options | ({"ratio": self.ratio} if self.ratio else {})
        calls = [*(str(step) for step in self.transforms), call_text(self.method, options)]
        return f"{self.layers}={'+'.join(calls)}"

    def choice(self) -> "MethodChoice":
        """The method as the compression package takes it."""
        return method_choice(self.method, self.options, self.ratio, self.transforms)


def method_choice(
    method: str,
    options: Mapping[str, OptionValue],
    ratio: float | None,
    transforms: tuple[Step, ...],
) -> "MethodChoice":
    """A method, or several, with options and transforms, as the compression package takes it."""
    from vqzoo.compression.selection import MethodChoice

    first, *others = parse_methods(method)
    steps = tuple(step.choice() for step in transforms)
    return MethodChoice(first, options, ratio, steps, tuple(others))


def check_options_of_one_method(
    method: str, *, options: Mapping[str, Any], ratio: float | None
) -> None:
    """Refuse options or a ratio beside several methods.

    Raises:
        ValueError: says what to do.
    """
    if "," in method and (options or ratio):
        raise ValueError(f"options and ratios belong to one method: leave them out beside {method}")


def parse_rule(text: str) -> Rule:
    """Read `LAYERS=METHOD[:name=value,...]`, as in `features.*=km:k=256,scale=row`.

    Transforms stand before the method, joined by +: `LAYERS=row-peaks:floor=0.1+km:k=256`.

    Raises:
        UsageError: the text is not of that form.
    """
    layers, equals, rest = text.partition("=")
    if not (layers and equals and rest):
        raise UsageError(f"rule {text!r}: write LAYERS=METHOD:name=value, as in 'conv=km:k=256'")
    *steps, last = rest.split("+")
    method, options = parse_call(last)
    ratio = options.pop("ratio", None)
    fields = {"layers": layers, "method": method, "options": options, "ratio": ratio}
    try:
        return Rule(**fields, transforms=tuple(steps))
    except ValidationError as error:
        field = invalid_field(error)
        raise UsageError(f"rule {text!r}: {field.name}: {field.reason}") from None


def call_text(name: str, options: Mapping[str, OptionValue]) -> str:
    """What `parse_call` reads as this call.

    It may stand next to a +, so floats are written as 1e5, not 1e+05.
    """
    pairs = [f"{option}={_value_text(value)}" for option, value in sorted(options.items())]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _value_text(value: OptionValue) -> str:
    return str(value).replace("e+", "e") if isinstance(value, float) else str(value)
