"""The recipes of published artifacts: a YAML file each, with the fields of `Recipe` and `repo`."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import vqzoo
from vqzoo.errors import UsageError, did_you_mean
from vqzoo.runs.recipe import Recipe, first_problem


@dataclass(frozen=True)
class ZooRecipe:
    """One artifact of the zoo.

    Attributes:
        name: the file's name without its suffix.
        repo: the repository's name without the organization.
        recipe: how the artifact is made.
    """

    name: str
    repo: str
    recipe: Recipe


def recipes_folder() -> Path:
    """The folder of vqzoo's recipes: in the installed package, or beside it in a checkout."""
    package = Path(vqzoo.__file__).parent
    packaged = package / "zoo_configs"
    return packaged if packaged.is_dir() else package.parent / "zoo_configs"


def find_recipes(names: Sequence[str], folder: Path) -> list[ZooRecipe]:
    """The recipes in a folder that have these names; all of them without names.

    Raises:
        UsageError: a folder or recipe does not exist, or a recipe is invalid; the message begins
            with file and line.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not paths:
        raise UsageError(f"{folder} holds no recipes (*.yaml)")
    for name in names:
        if name not in paths:
            hint = did_you_mean(name, paths)
            raise UsageError(f"no recipe called {name!r}{hint} There are: {', '.join(paths)}")
    return [read_zoo_recipe(paths[name]) for name in dict.fromkeys(names or paths)]


def read_zoo_recipe(path: Path) -> ZooRecipe:
    """Read one recipe.

    Raises:
        UsageError: the file cannot be read or is invalid; the message begins with file and line.
    """
    fields, root = read_mapping(path, "a recipe is a mapping of fields such as model and method")
    repo = fields.pop("repo", path.stem)
    if not isinstance(repo, str) or not repo or "/" in repo:
        line = line_of(root, ("repo",))
        raise UsageError(f"{path}:{line}: repo: write a name without the organization")
    try:
        return ZooRecipe(path.stem, repo, Recipe(**fields))
    except ValidationError as error:
        place, text = first_problem(error)
        raise UsageError(f"{path}:{line_of(root, place)}: {text}") from None


def with_data(recipe: ZooRecipe, data: str | None) -> ZooRecipe:
    """The recipe, measured on `data` where it names nothing itself."""
    if data is None or recipe.recipe.data is not None:
        return recipe
    return replace(recipe, recipe=recipe.recipe.model_copy(update={"data": data}))


def read_mapping(path: Path, form: str) -> tuple[dict[str, Any], yaml.Node]:
    """The fields of a YAML file, and its root node, of which `line_of` tells the lines.

    Args:
        path: the file.
        form: what the file should be, for the error message.

    Raises:
        UsageError: the file cannot be read, is not a mapping of texts to values, or gives a field
            twice; the message begins with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        fields = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the file is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: this is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict) or root is None:
        raise UsageError(f"{path}:1: {form}")
    _refuse_duplicates(root, path)
    if not all(isinstance(name, str) for name in fields):
        raise UsageError(f"{path}:1: field names must be text")
    return fields, root


def line_of(root: yaml.Node, place: Sequence[int | str]) -> int:
    """The line, counted from 1, of the value at a place such as ("rules", 0, "method"), or of the
    innermost value around it that exists."""
    node = root
    for part in place:
        inner = None
        if isinstance(node, yaml.MappingNode):
            inner = next((v for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inner = node.value[part] if part < len(node.value) else None
        if inner is None:
            break
        node = inner
    return int(node.start_mark.line) + 1


def _refuse_duplicates(node: yaml.Node, path: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Hashable] = set()
    pairs: list[tuple[Any, yaml.Node]] = node.value
    for key, value in pairs:
        if isinstance(key.value, str) and key.value in seen:
            raise UsageError(f"{path}:{key.start_mark.line + 1}: {key.value} is given twice")
        if isinstance(key.value, str):
            seen.add(key.value)
        _refuse_duplicates(value, path)
