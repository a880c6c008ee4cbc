"""Fills the template in."""

import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from vqzoo.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".tmpl"


def write_plugin(name: str, parent: Path) -> Path:
    """Write a distribution with one quantizer, its tests and a README into `parent / name`.

    Args:
        name: of the distribution, "my-method"; the method is called the same, the package
            my_method, the class MyMethod.
        parent: an existing folder.

    Returns:
        The new folder.

    Raises:
        UsageError: the name would not do, or the folder is there already.
    """
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise UsageError(
            f"{name!r} will not do: words of a-z and 0-9, joined by -, as in my-method"
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already")
    words = {
        "name": name,
        "package": package,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
    }
    folder.mkdir(parents=True)
    _fill(files("vqzoo.scaffold") / "template", folder, words)
    return folder


def _fill(source: Traversable, target: Path, words: dict[str, str]) -> None:
    for item in source.iterdir():
        place = target / item.name.replace("package", words["package"]).removesuffix(_SUFFIX)
        if item.is_dir():
            place.mkdir()
            _fill(item, place, words)
        elif item.name.endswith(_SUFFIX):
            text = Template(item.read_text(encoding="utf-8")).substitute(words)
            place.write_text(text, encoding="utf-8")
