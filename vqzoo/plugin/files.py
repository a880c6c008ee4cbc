"""Plugins in single files, loaded for the duration of a `with` block."""

import hashlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from vqzoo.errors import UsageError, cause
from vqzoo.plugin.registry import Origin

FILE_PREFIX = "file:"  # never the name of a distribution: those have no colon

_in_use: ContextVar[tuple[Path, ...]] = ContextVar("plugin_files", default=())


@contextmanager
def plugin_files(paths: Sequence[str | Path]) -> Iterator[None]:
    """Add the plugins in these files to `installed_plugins` inside the block.

    Raises:
        UsageError: a file does not exist.
    """
    resolved = tuple(Path(path).resolve() for path in paths)
    for path, spelling in zip(resolved, paths, strict=True):
        if not path.is_file():
            raise UsageError(f"there is no plugin file {spelling}")
    token = _in_use.set(tuple(dict.fromkeys(_in_use.get() + resolved)))
    try:
        yield
    finally:
        _in_use.reset(token)


def files_in_use() -> tuple[tuple[Path, str], ...]:
    """The files of the enclosing `plugin_files` blocks, each with the sha256 of its contents."""
    return tuple((path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in _in_use.get())


def file_origin(path: Path, sha256: str) -> Origin:
    """The origin that artifacts record: the file's name and hash for distribution and version."""
    return Origin(path.stem, FILE_PREFIX + path.name, sha256[:12])


def import_file(path: Path, sha256: str) -> ModuleType:
    """Import a file as a module.

    Raises:
        UsageError: the import fails; the message gives the line.
    """
    name = f"vqzoo_plugin_file_{sha256[:12]}_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: the name of a plugin file ends in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # pydantic and pickle look classes up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line(error, path)
        raise UsageError(f"plugin file {path} failed{line}: {cause(error)}") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """The line of the file that raised the error, " at line 3"; empty if none did."""
    if isinstance(error, SyntaxError):
        return f" at line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" at line {lines[-1]}" if lines else ""
