"""Command-line options from their declarations on the fields of settings."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import BaseModel

from vqzoo.cli.completion import complete_method
from vqzoo.command_options import DeclaredOption, declared_options

_COMPLETION = {"--method": complete_method}

Command = Callable[..., None]


def takes(
    model: type[BaseModel], *, only: Collection[str] | None = None, last: bool = False
) -> Callable[[Command], Command]:
    """Give a command an option for each field of `model` that declares one.

    The command's first parameter receives the fields of `model` that the command line sets, and no
    others, as a dict.

    Args:
        only: names of the fields to take; all by default.
        last: whether the help text lists these options after the command's own.
    """
    options = [d for d in declared_options(model) if only is None or d.path[0] in only]

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def wrapped(**arguments: Any) -> None:
            values = {option.path: arguments.pop(_parameter_name(option)) for option in options}
            function(fields_set(options, values), **arguments)

        _, *others = inspect.signature(function, eval_str=True).parameters.values()
        written = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
        declared = [_parameter(option) for option in options]
        parameters = [*written, *declared] if last else [*declared, *written]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def fields_set(
    options: Sequence[DeclaredOption], values: Mapping[tuple[str, ...], Any]
) -> dict[str, Any]:
    """The fields that the command line sets, nested as the settings are.

    Args:
        options: the options of a command.
        values: the parser's values, by path: None, False or an empty list for an absent option.
    """
    fields: dict[str, Any] = {}
    for declared in options:
        value = values[declared.path]
        if value is True:
            value = not declared.field.default  # a flag is the opposite of its field's default
        elif value is False:
            value = None
        elif value and declared.option.read is not None:
            value = declared.option.read(value)
        if value is None or value in ([], (), {}):
            continue
        *groups, name = declared.path
        holder = fields
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[name] = value
    return fields


def _parameter(declared: DeclaredOption) -> inspect.Parameter:
    """The option as a parameter of a command, as typer takes it."""
    option = declared.option
    kind = _value_type(declared)
    bounds = [mark.ge for mark in declared.field.metadata if hasattr(mark, "ge")]
    info = typer.Option(
        option.flag,
        *filter(None, [option.alias]),
        help=option.help + _default_text(declared),
        metavar=option.metavar,
        rich_help_panel=option.panel,
        min=bounds[0] if bounds and kind is int else None,
        autocompletion=_COMPLETION.get(option.flag),
    )
    return inspect.Parameter(
        _parameter_name(declared),
        inspect.Parameter.KEYWORD_ONLY,
        default=False if kind is bool else None,
        annotation=Annotated[kind if kind is bool else kind | None, info],
    )


def _parameter_name(declared: DeclaredOption) -> str:
    return "_".join(declared.path)


def _value_type(declared: DeclaredOption) -> Any:
    """The type that the parser reads: bool, int, float, Path or str, or a list of the last two."""
    annotation = declared.field.annotation
    if get_origin(annotation) in (tuple, dict):
        return list[Path] if Path in get_args(annotation) else list[str]
    kinds = [annotation, *get_args(annotation)]  # of `int | None`
    kinds += [get_args(kind)[0] for kind in kinds if get_origin(kind) is Annotated]
    return next((kind for kind in (bool, int, float, Path) if kind in kinds), str)


def _default_text(declared: DeclaredOption) -> str:
    """What happens without the option, for its help text."""
    text, default = declared.option.default, declared.field.default
    if text is None and isinstance(default, float):
        text = f"{default:g}"
    elif text is None and default is not None and not isinstance(default, bool):
        text = ", ".join(declared.option.texts(default))
    return f" [dim]default: {text}[/]" if text else ""
