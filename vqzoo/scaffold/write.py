"""Write a plugin from the template."""

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
    """Write a package with one quantizer, its tests and a README into `parent / name`.

    Args:
        name: name of the package and its method, "my-method"; the module becomes my_method, the
            class MyMethod.
        parent: the folder to write into; created if it does not exist.

    Returns:
        The new folder.

    Raises:
        UsageError: the name is invalid, or the folder exists already.
    """
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise UsageError(
            f"{name!r} is not a valid name: join words of a-z and 0-9 by -, as in my-method"
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name or folder")
    values = {
        "name": name,
        "package": package,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
    }
    folder.mkdir(parents=True)
    _fill(files("vqzoo.scaffold") / "template", folder, values)
    return folder


def _fill(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Copy a folder of the template, with the values in its file names and texts."""
    for item in source.iterdir():
        path = target / item.name.replace("package", values["package"]).removesuffix(_SUFFIX)
        if item.is_dir():
            path.mkdir()
            _fill(item, path, values)
        elif item.name.endswith(_SUFFIX):
            text = Template(item.read_text(encoding="utf-8")).substitute(values)
            path.write_text(text, encoding="utf-8")
