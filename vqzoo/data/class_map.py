"""Class maps: which class of the model a folder of images holds, as the user says.

A class map is text or JSON, whatever the file is called. Text has one line a class: the folder's
name alone (its line number is the class, from 0, as in timm), or the name and the number, separated
by blanks, a tab or a comma. JSON is {"folder": class}, {"class": "folder"} or ["folder", ...].
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError, one_line

_MOST_BYTES = 1 << 24
_SHOWN = 3  # names in an error message

ClassMap = str | Path | Mapping[str, int]


def class_map_name(class_map: ClassMap) -> str:
    """The name of a class map without local folders."""
    return "the mapping given" if isinstance(class_map, Mapping) else Path(class_map).name


def read_class_map(
    class_map: ClassMap, folders: Sequence[str], num_classes: int | None
) -> dict[str, int]:
    """The class of each folder.

    Args:
        class_map: a file, or a mapping from folder to class. It may name more folders than there
            are, and several folders may hold one class.
        folders: the class folders.
        num_classes: the model's classes, None for no bound.

    Raises:
        UsageError: the file cannot be read, is not a class map, leaves out a folder, or gives a
            class that the model lacks.
    """
    if isinstance(class_map, Mapping):
        name, classes = class_map_name(class_map), dict(class_map)
    else:
        name, text = str(class_map), _read(Path(class_map).expanduser())
        as_json = text.lstrip()[:1] in ("{", "[")
        classes = _from_json(text, name) if as_json else _from_text(text, name, folders)
    missing = [folder for folder in folders if folder not in classes]
    if missing:
        raise UsageError(
            f"class map {name} leaves out the class folders {shortened(missing)}; "
            f"it names {shortened(list(classes)) or 'nothing'}"
        )
    most = 2**31 if num_classes is None else num_classes
    for folder in folders:
        index = classes[folder]
        if type(index) is not int or not 0 <= index < most:
            bound = "" if num_classes is None else f": the model has {num_classes} classes"
            raise UsageError(f"class map {name} gives {folder!r} the class {index!r:.40}{bound}")
    return {folder: classes[folder] for folder in folders}


def shortened(names: Sequence[str]) -> str:
    """Names for a message: 'a', 'b', 'c' and 4 more."""
    text = ", ".join(repr(name) for name in names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text} and {len(names) - _SHOWN:,} more"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"class map {path} has more than {_MOST_BYTES:,} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"class map {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"class map {path} is not text: write it as text or JSON") from None


def _from_text(text: str, name: str, folders: Sequence[str]) -> dict[str, int]:
    """Names alone if these name every folder ("class 1" is a name), else names and numbers."""
    lines = [line.strip() for line in text.splitlines()]
    alone = [(line, index) for index, line in enumerate(lines) if line]
    if set(folders) <= {line for line, _ in alone}:
        return _without_duplicates(alone, name)
    pairs = [pair for line, _ in alone if (pair := _name_and_number(line)) is not None]
    return _without_duplicates(pairs if len(pairs) == len(alone) else alone, name)


def _name_and_number(line: str) -> tuple[str, int] | None:
    """Split "name 12", "name<tab>12" or "name,12"; None where a line is something else."""
    before = line.rstrip("0123456789")
    number, name = line[len(before) :], before.rstrip(" \t,")
    if not name or name == before or not 1 <= len(number) < 19:
        return None
    return name, int(number)


def _from_json(text: str, name: str) -> dict[str, int]:
    try:
        content = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"class map {name} is not JSON: {one_line(error)}") from None
    if text.lstrip().startswith("["):
        pairs = list(zip(content, range(len(content)), strict=True))
    elif all(isinstance(value, str) and key.isdecimal() for key, value in content):
        pairs = [(folder, int(index)) for index, folder in content if len(index) < 19]
    else:
        pairs = content
    if not all(isinstance(folder, str) for folder, _ in pairs):
        raise UsageError(
            f'class map {name} is neither {{"folder": class}} nor {{"class": "folder"}} nor '
            '["folder", ...]'
        )
    return _without_duplicates(pairs, name)


def _without_duplicates(pairs: Iterable[tuple[str, Any]], name: str) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    for folder, index in pairs:
        if classes.setdefault(folder, index) != index:
            raise UsageError(
                f"class map {name} gives {folder!r} the classes {classes[folder]!r:.40} and "
                f"{index!r:.40}"
            )
    return classes
