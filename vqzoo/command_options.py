"""Settings that the command line sets, each declared once: on the field of a pydantic model.

    class Recipe(BaseModel):
        images: Annotated[int | None, CommandOption("--images", help="...")] = None

The command takes its option from the declaration (`vqzoo.cli.declared.takes`), and so does the
canonical command of a record (`command_words`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class CommandOption:
    """The option that sets a field.

    Attributes:
        flag: the spelling that `command_words` writes.
        alias: another spelling.
        help: what the option does; the field's default is appended.
        default: what happens without the option, where the field's default does not say it.
        implied: the value without the option where it follows from other settings.
        metavar: stands for the value in help texts; by default the value's type.
        panel: heading in the help text.
        read: makes the field's value of the texts of a repeatable option, where pydantic cannot.
        write: the text of a value, or of each value of a mapping, where `str` is not right.
        always: whether `command_words` writes the option even with its default.
        recorded: whether `command_words` writes the option at all.
    """

    flag: str
    alias: str | None = None
    help: str = field(kw_only=True)
    default: str | None = field(default=None, kw_only=True)
    implied: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    metavar: str | None = field(default=None, kw_only=True)
    panel: str | None = field(default=None, kw_only=True)
    read: Callable[[list[str]], Any] | None = field(default=None, kw_only=True)
    write: Callable[[Any], str] | None = field(default=None, kw_only=True)
    always: bool = field(default=False, kw_only=True)
    recorded: bool = field(default=True, kw_only=True)

    def words(self, value: Any) -> list[str]:
        """The words that give the option this value: none, or the flag before each text."""
        if isinstance(value, bool):
            return [self.flag]
        return [word for text in self.texts(value) for word in (self.flag, text)]

    def texts(self, value: Any) -> list[str]:
        """The value as text, once for each time that the option is given."""
        write = self.write
        if isinstance(value, Mapping):
            return [f"{name}={(write or str)(inner)}" for name, inner in sorted(value.items())]
        return _texts(value) if write is None else [write(value)]


@dataclass(frozen=True)
class OptionGroup:
    """Marks a field that holds further settings, whose options the command takes, too.

    Attributes:
        changes: name of an inner field -> the attributes of its option that differ here:
            `{"data": {"flag": "--train-data"}}`.
    """

    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DeclaredOption:
    """An option, and the field that it sets: "finetune", "epochs" for `recipe.finetune.epochs`."""

    path: tuple[str, ...]
    option: CommandOption
    field: FieldInfo

    def value(self, settings: BaseModel) -> Any:
        """The field's value; None where the settings around it are None."""
        value: Any = settings
        for name in self.path:
            value = None if value is None else getattr(value, name)
        return value


def declared_options(model: type[BaseModel]) -> Iterator[DeclaredOption]:
    """The options of a model's fields, in the order of the fields."""
    for name, info in model.model_fields.items():
        for mark in info.metadata:
            if isinstance(mark, CommandOption):
                yield DeclaredOption((name,), mark, info)
            elif isinstance(mark, OptionGroup):
                for inner in declared_options(_inner_model(info)):
                    option = replace(inner.option, **mark.changes.get(inner.path[-1], {}))
                    yield replace(inner, path=(name, *inner.path), option=option)


def command_words(settings: BaseModel) -> list[str]:
    """The words of a command line that ask for these settings, without local paths.

    Settings that have their default are left out.
    """
    words: list[str] = []
    for declared in declared_options(type(settings)):
        option, value = declared.option, declared.value(settings)
        if value is None or not option.recorded:
            continue
        implied = declared.field.default if option.implied is None else option.implied(settings)
        if option.always or value != implied:
            words += option.words(value)
    return words


def public_data_name(spec: str) -> str:
    """A data specification without the folders above its last one."""
    kind, colon, path = spec.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind in ("imagefolder", "fmnist") else spec


def _texts(value: Any) -> list[str]:
    """A value as text, once for each time that its option is given; a path without its folders."""
    if isinstance(value, Path):
        return [value.name]
    if isinstance(value, tuple):
        return [text for item in value for text in _texts(item)]
    return [str(value)]


def _inner_model(info: FieldInfo) -> type[BaseModel]:
    """The settings class of a field `Inner` or `Inner | None`."""
    candidates = (info.annotation, *get_args(info.annotation))
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
