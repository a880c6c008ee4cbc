"""The grid of a sweep: lists whose product is one recipe a cell."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vqzoo.errors import UsageError, did_you_mean, invalid_field
from vqzoo.runs.fields.rules import OptionValue
from vqzoo.runs.recipe import Recipe, first_problem
from vqzoo.sweeps.check import NameCheck
from vqzoo.zoo.recipes import line_of, read_mapping

_Options = dict[str, OptionValue]
Place = tuple[int | str, ...]  # of a value in the file: ("ratios", 1)
# List of the grid -> field of a recipe.
_AXES = {
    "models": "model",
    "seeds": "seed",
    "layers": "layers",
    "methods": "method",
    "options": "options",
    "ratios": "ratio",
    "sizes": "size",
}


def _as_layers(value: Any) -> Any:
    """Each entry of `layers` is text, joined by commas, or a list of selectors."""
    if not isinstance(value, list):
        return value
    return [entry.split(",") if isinstance(entry, str) else entry for entry in value]


class Grid(BaseModel):
    """The lists of a sweep; any other field of a recipe is the same in all cells.

    Attributes:
        models: names of models.
        methods: names of methods; without them, `sizes` choose.
        options: options of the methods, one mapping a cell; or such a list for each method by name.
        ratios: ratios of the compressed layers.
        sizes: sizes of the whole file. A cell has a ratio or a size.
        seeds: seeds.
        layers: selections of layers.
        common: fields of a recipe that all cells have, such as data and images.
        include: further cells: fields of a recipe that join those in `common`.
        exclude: cells of the product to leave out: all that have these values; names may be
            patterns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[list[str], Field(min_length=1)]
    methods: list[str] = []
    options: list[_Options] | dict[str, list[_Options]] = []
    ratios: list[float] = []
    sizes: list[str | int] = []
    seeds: list[int] = []
    layers: Annotated[list[list[str]], BeforeValidator(_as_layers)] = []
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    common: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _other_fields_are_common(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = Recipe.model_fields.keys() - cls.model_fields.keys() - set(_AXES.values())
        common = {name: fields[name] for name in fields if name in known}
        return {**{n: v for n, v in fields.items() if n not in common}, "common": common}


@dataclass(frozen=True)
class _Entry:
    """A value of one axis, and where it stands in the file."""

    field: str
    value: Any
    place: Place


def read_grid(path: Path) -> list[Recipe]:
    """The recipes of a grid's cells, each once, cells of one model together.

    Raises:
        UsageError: the file cannot be read or is invalid; the message begins with file and line.
    """
    fields, root = read_mapping(path, "a grid is a mapping of lists such as models and methods")
    if "common" in fields:
        line = line_of(root, ("common",))
        raise UsageError(f"{path}:{line}: common: write its fields beside the lists")
    try:
        grid = Grid(**fields)
    except ValidationError as error:
        raise UsageError(_grid_problem(error, path, root)) from None
    check = NameCheck()
    recipes: dict[str, Recipe] = {}
    for cell, places in chain(_product(grid), _included(grid)):
        try:
            recipe = Recipe(**cell)
        except ValidationError as error:
            place, text = first_problem(error)
            line = line_of(root, _place(place, places))
            raise UsageError(f"{path}:{line}: {text}") from None
        if (problem := check.problem(recipe)) is not None:
            line = line_of(root, _place((problem[0],), places))
            raise UsageError(f"{path}:{line}: {problem[1]}")
        recipes.setdefault(recipe.model_dump_json(), recipe)
    if not recipes:
        raise UsageError(f"{path}: no cell is left: exclude leaves out the whole product")
    return list(recipes.values())


def _product(grid: Grid) -> Iterator[tuple[dict[str, Any], dict[str, Place]]]:
    """The fields of each cell of the product, and where each field stands in the file."""
    common = _common_places(grid)
    outer = [_axis(grid, name) for name in ("models", "seeds", "layers")]
    rates = [*_axis(grid, "ratios"), *_axis(grid, "sizes")]
    # A cell has a ratio or a size, or neither where both lists are empty.
    rates = [rate for rate in rates if rate] or [()]
    for entries in product(*outer, _methods(grid), rates):
        chosen = [entry for group in entries for entry in group]
        fields = grid.common | {entry.field: entry.value for entry in chosen}
        if not any(_matches(fields, excluded) for excluded in grid.exclude):
            yield fields, common | {entry.field: entry.place for entry in chosen}


def _included(grid: Grid) -> Iterator[tuple[dict[str, Any], dict[str, Place]]]:
    for index, extra in enumerate(grid.include):
        places = _common_places(grid)
        places |= {name: ("include", index, name) for name in extra}
        places[""] = ("include", index)
        yield grid.common | extra, places


def _common_places(grid: Grid) -> dict[str, Place]:
    return {name: (name,) for name in grid.common}


def _entries(grid: Grid, name: str) -> list[_Entry]:
    values = getattr(grid, name)
    return [_Entry(_AXES[name], value, (name, index)) for index, value in enumerate(values)]


def _axis(grid: Grid, name: str) -> list[tuple[_Entry, ...]]:
    """The values of a list, or none at all in their place."""
    return [(entry,) for entry in _entries(grid, name)] or [()]


def _methods(grid: Grid) -> list[tuple[_Entry, ...]]:
    """Methods with each of their options."""
    pairs: list[tuple[_Entry, ...]] = []
    for method in _axis(grid, "methods"):
        if isinstance(grid.options, list):
            options = _axis(grid, "options")
        else:
            name = method[0].value if method else ""
            options = [
                (_Entry("options", value, ("options", name, index)),)
                for index, value in enumerate(grid.options.get(name, []))
            ] or [()]
        pairs += [(*method, *option) for option in options]
    return pairs


def _matches(fields: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    """Whether a cell has all values of an entry of `exclude`."""
    return all(_equal(fields.get(name), value) for name, value in excluded.items())


def _equal(value: Any, pattern: Any) -> bool:
    if isinstance(value, dict) and isinstance(pattern, dict):
        return _matches(value, pattern)
    if isinstance(value, list) and isinstance(pattern, str):
        value = ",".join(value)
    if isinstance(value, str) and isinstance(pattern, str):
        return fnmatchcase(value, pattern)
    return bool(value == pattern)


def _place(place: Place, places: Mapping[str, Place]) -> Place:
    """Where a field of a cell stands in the file."""
    if place and place[0] in places:
        return (*places[str(place[0])], *place[1:])
    return places.get("", place)


def _grid_problem(error: ValidationError, path: Path, root: yaml.Node) -> str:
    field = invalid_field(error)
    place = field.path[1:] if field.path[:1] == ("common",) else field.path
    known = [*Grid.model_fields, *Recipe.model_fields]
    known = [name for name in known if name not in (*_AXES.values(), "common")] + ["layers"]
    text = field.reason
    if field.unknown:
        name = str(place[0])
        plural = next((axis for axis, one in _AXES.items() if one == name), None)
        hint = f"; write a list: {plural}" if plural else did_you_mean(name, known)
        text = f"unknown{hint}"
    place = tuple(part for part in place if part not in ("list[dict]", "dict[str,list]"))
    name = ".".join(str(part) for part in place)
    return f"{path}:{line_of(root, place)}: {name}: {text}"
