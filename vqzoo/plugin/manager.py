"""Loads plugins by their entry points, leaves out broken ones, and registers what they provide.

pluggy's own `load_setuptools_entrypoints` silently skips a name that is already taken and lets one
broken plugin end the program, so this module loads the entry points itself.
"""

import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from vqzoo.errors import PluginWarning, UsageError, cause
from vqzoo.plugin import hookspecs
from vqzoo.plugin.contract import check_contract
from vqzoo.plugin.execution.engine import Engine
from vqzoo.plugin.files import (
    FILE_PREFIX,
    file_origin,
    files_in_use,
    import_file,
    plugin_files,
)
from vqzoo.plugin.formats.importer import Importer
from vqzoo.plugin.method import Method, Options
from vqzoo.plugin.packing import Packing
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Origin, Registered, Registry, only_claim
from vqzoo.plugin.selector import LayerSelector
from vqzoo.plugin.transform import Transform

GROUP = "vqzoo"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class PluginStatus:
    """The outcome of loading one entry point.

    Attributes:
        origin: the entry point and its distribution.
        module: the module that the entry point names, or the path of a plugin file.
        problem: why it was not loaded; None if it was.
        provides: what it provides, ("method pq", "packing rans").
    """

    origin: Origin
    module: str
    problem: str | None
    provides: tuple[str, ...] = ()


@dataclass
class Plugins:
    """Everything that the loaded plugins provide."""

    quantizers: Registry[Quantizer] = field(default_factory=lambda: Registry("method"))
    transforms: Registry[Transform] = field(default_factory=lambda: Registry("transform"))
    selectors: Registry[LayerSelector] = field(default_factory=lambda: Registry("layer selector"))
    packings: Registry[Packing] = field(default_factory=lambda: Registry("packing"))
    importers: Registry[Importer] = field(default_factory=lambda: Registry("importer"))
    engines: Registry[Engine] = field(default_factory=lambda: Registry("executor"))
    statuses: list[PluginStatus] = field(default_factory=list)
    hooks: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Plugins":
        """Return itself: a copied network uses the same plugins, and modules cannot be copied."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of plugin files: another process loads what is installed there."""
        return _plugins_with_files, (self._files(),)

    def _files(self) -> tuple[str, ...]:
        return tuple(
            status.module
            for status in self.statuses
            if status.problem is None and status.origin.distribution.startswith(FILE_PREFIX)
        )

    @property
    def registries(self) -> tuple[Registry[Any], ...]:
        """One registry for each kind of item."""
        return (
            self.quantizers,
            self.transforms,
            self.selectors,
            self.packings,
            self.importers,
            self.engines,
        )

    def method(self, name: str) -> Registered[Any]:
        """The quantizer or transform called `name` or `distribution:name`.

        Raises:
            UsageError: the name is unknown, or several quantizers or transforms claim it.
        """
        claims: list[Registered[Any]] = [
            *self.quantizers.claims(name),
            *self.transforms.claims(name),
        ]
        return only_claim("method", claims) if claims else self.quantizers.get(name)

    def method_name(self, entry: Registered[Any]) -> str:
        """The name under which `method` finds `entry`: the bare name unless it is ambiguous."""
        claims = [*self.quantizers.claims(entry.name), *self.transforms.claims(entry.name)]
        return entry.name if len(claims) == 1 else f"{entry.origin.distribution}:{entry.name}"

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an observer's hook in every plugin; an exception becomes a `PluginWarning`."""
        for implementation in getattr(self.hooks.hook, hook).get_hookimpls():
            accepted = {name: arguments[name] for name in implementation.argnames}
            try:
                implementation.function(**accepted)
            except (Exception, SystemExit) as error:
                _warn(f"plugin {implementation.plugin_name}: {hook} failed: {cause(error)}")


def installed_plugins() -> Plugins:
    """The plugins of this environment and of the enclosing `plugin_files` blocks.

    They are loaded once. `VQZOO_PLUGINS=a,b` limits the environment's to these entry points.

    Raises:
        UsageError: a plugin file fails, or VQZOO_PLUGINS names a plugin that is not installed.
    """
    return _loaded(files_in_use())


@cache
def _loaded(files: tuple[tuple[Path, str], ...]) -> Plugins:
    plugins = load_plugins(_chosen_entry_points())
    for path, sha256 in files:
        _load_file(plugins, path, sha256)
    return plugins


def _plugins_with_files(files: tuple[str, ...]) -> Plugins:
    """The plugins of this environment and of these files, for pickle."""
    with plugin_files(files):
        return installed_plugins()


def forget_plugins() -> None:
    """Make the next call of `installed_plugins` load everything anew."""
    _loaded.cache_clear()


def _chosen_entry_points() -> list[EntryPoint]:
    """The installed entry points that VQZOO_PLUGINS does not exclude."""
    installed = list(entry_points(group=GROUP))
    choice = os.environ.get("VQZOO_PLUGINS")
    if choice is None:
        return installed
    names = {name.strip() for name in choice.split(",") if name.strip()}
    missing = names - {point.name for point in installed}
    if missing:
        have = ", ".join(sorted(point.name for point in installed)) or "none"
        raise UsageError(f"VQZOO_PLUGINS names {', '.join(sorted(missing))}; installed: {have}")
    return [point for point in installed if point.name in names]


def load_plugins(points: Iterable[EntryPoint]) -> Plugins:
    """Load the plugins behind `points`.

    A broken plugin is left out with a `PluginWarning`, and its status says why.
    """
    plugins = Plugins()
    plugins.hooks.add_hookspecs(hookspecs)
    origins = [(_origin(point), point) for point in points]
    for origin, point in sorted(origins, key=lambda pair: (pair[0].distribution, pair[1].name)):
        try:
            provides = _register(plugins, point.load(), origin)
        except (Exception, SystemExit) as error:
            problem = cause(error)
            _warn(f"plugin {origin.entry_point} of {origin.distribution} is left out: {problem}")
            plugins.statuses.append(PluginStatus(origin, point.value, problem))
            for registry in plugins.registries:
                registry.add_failure(f"{origin.entry_point} of {origin.distribution} ({problem})")
        else:
            plugins.statuses.append(PluginStatus(origin, point.value, None, tuple(provides)))
    return plugins


def _load_file(plugins: Plugins, path: Path, sha256: str) -> None:
    """Load a plugin file. The user named it, so a failure is an error.

    Raises:
        UsageError: the import fails, the contract refuses it, or it implements no hook.
    """
    origin = file_origin(path, sha256)
    module = import_file(path, sha256)
    try:
        provides = _register(plugins, module, origin)
    except (Exception, SystemExit) as error:
        raise UsageError(f"plugin file {path} is refused: {cause(error)}") from error
    if not plugins.hooks.get_hookcallers(module):
        raise UsageError(
            f"plugin file {path} implements no hook: add a function vqzoo_quantizers, marked "
            "@hookimpl, that returns [MyMethod()]"
        )
    plugins.statuses.append(PluginStatus(origin, str(path), None, tuple(provides)))


def _register(plugins: Plugins, plugin: Any, origin: Origin) -> list[str]:
    """Register all that a plugin provides, or raise before any of it is in a registry.

    Returns:
        What it provides, ["method pq", ...].
    """
    check_contract(plugin)
    name = f"{origin.distribution}:{origin.entry_point}"
    if plugins.hooks.has_plugin(name):
        raise ValueError(f"{name} is declared twice")
    try:
        plugins.hooks.register(plugin, name=name)
        plugins.hooks.check_pending()
        kinds: list[tuple[Registry[Any], list[Any]]] = [
            (plugins.quantizers, _provided(plugins, name, "vqzoo_quantizers", Quantizer)),
            (plugins.transforms, _provided(plugins, name, "vqzoo_transforms", Transform)),
            (plugins.selectors, _provided(plugins, name, "vqzoo_layer_selectors", LayerSelector)),
            (plugins.packings, _provided(plugins, name, "vqzoo_packings", Packing)),
            (plugins.importers, _provided(plugins, name, "vqzoo_importers", Importer)),
            (plugins.engines, _provided(plugins, name, "vqzoo_executors", Engine)),
        ]
    except BaseException:
        if plugins.hooks.has_plugin(name):  # pluggy keeps a plugin whose hooks it refused
            plugins.hooks.unregister(name=name)
        raise
    for registry, items in kinds:
        for item in items:
            registry.add(item.name, item, origin)
    return [f"{registry.kind} {item.name}" for registry, items in kinds for item in items]


def _provided(plugins: Plugins, name: str, hook: str, kind: type) -> list[Any]:
    """The items that one plugin's hook returns, checked."""
    items = list(_call(plugins, name, hook) or [])
    for item in items:
        if not isinstance(item, kind):
            text = f"the class {item.__name__}" if isinstance(item, type) else f"{item!r:.80}"
            raise TypeError(f"{hook} returned {text}, not an instance of {kind.__name__}")
        if not _NAME.fullmatch(getattr(item, "name", "")):
            raise ValueError(f"{type(item).__name__} needs a name of a-z, 0-9, - and _")
        if not isinstance(getattr(item, "version", ""), str):
            raise TypeError(f"the version of {type(item).__name__} is not a string")
        if isinstance(item, Method) and not issubclass(item.Options, Options):
            raise TypeError(f"{item.name}.Options does not derive from vqzoo.plugin.Options")
    return items


def _call(plugins: Plugins, name: str, hook: str) -> Any:
    for implementation in getattr(plugins.hooks.hook, hook).get_hookimpls():
        if implementation.plugin_name == name:
            return implementation.function()
    return None


def _origin(point: EntryPoint) -> Origin:
    if point.dist is None:
        return Origin(point.name, "unknown", "0")
    metadata = point.dist.metadata  # of a damaged installation: it may lack both
    name, *_ = metadata.get_all("Name", ["unknown"])
    version, *_ = metadata.get_all("Version", ["0"])
    return Origin(point.name, str(name), str(version))


def _warn(text: str) -> None:
    warnings.warn(text, PluginWarning, stacklevel=3)
