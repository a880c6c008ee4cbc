"""Finds plugins by their entry points, isolates broken ones, and hands out what they bring.

pluggy's own `load_setuptools_entrypoints` skips a name that is taken without a word and lets one
broken plugin end the program, so the entry points are walked here.
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

from vqzoo.errors import UsageError, cause
from vqzoo.plugin import hookspecs
from vqzoo.plugin.contract import check_contract
from vqzoo.plugin.files import file_origin, files_in_use, import_file
from vqzoo.plugin.method import Method, Options
from vqzoo.plugin.packing import Packing
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Origin, Registered, Registry, only_claim
from vqzoo.plugin.selector import LayerSelector
from vqzoo.plugin.transform import Transform

GROUP = "vqzoo"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class PluginWarning(UserWarning):
    """A plugin could not be used; everything else goes on."""


@dataclass(frozen=True)
class PluginStatus:
    """One entry point: loaded, or why not."""

    origin: Origin
    module: str
    problem: str | None
    brings: tuple[str, ...] = ()


@dataclass
class Plugins:
    """Everything that the loaded plugins bring."""

    quantizers: Registry[Quantizer] = field(default_factory=lambda: Registry("method"))
    transforms: Registry[Transform] = field(default_factory=lambda: Registry("transform"))
    selectors: Registry[LayerSelector] = field(default_factory=lambda: Registry("layer selector"))
    packings: Registry[Packing] = field(default_factory=lambda: Registry("packing"))
    statuses: list[PluginStatus] = field(default_factory=list)
    hooks: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Plugins":
        """Itself: a copied network runs by the same plugins, and modules cannot be copied."""
        return self

    def method(self, name: str) -> Registered[Any]:
        """The quantizer or transform called `name` or `distribution:name`.

        Raises:
            UsageError: the name is unknown, or ambiguous among quantizers and transforms together.
        """
        claims: list[Registered[Any]] = [
            *self.quantizers.claims(name),
            *self.transforms.claims(name),
        ]
        return only_claim("method", claims) if claims else self.quantizers.get(name)

    def method_name(self, entry: Registered[Any]) -> str:
        """What `method` finds `entry` by: its bare name, unless others claim that too."""
        claims = [*self.quantizers.claims(entry.name), *self.transforms.claims(entry.name)]
        return entry.name if len(claims) == 1 else f"{entry.origin.distribution}:{entry.name}"

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a hook that returns nothing in every plugin; one that raises is a warning."""
        for implementation in getattr(self.hooks.hook, hook).get_hookimpls():
            wanted = {name: arguments[name] for name in implementation.argnames}
            try:
                implementation.function(**wanted)
            except (Exception, SystemExit) as error:
                _warn(f"plugin {implementation.plugin_name}: {hook} failed: {cause(error)}")


def installed_plugins() -> Plugins:
    """The plugins of this environment, and those of `plugin_files` blocks around the call.

    `VQZOO_PLUGINS=a,b` limits those of the environment by name.

    Raises:
        UsageError: a plugin file fails, or VQZOO_PLUGINS names what is not installed.
    """
    return _loaded(files_in_use())


@cache
def _loaded(files: tuple[tuple[Path, str], ...]) -> Plugins:
    """Load once what is installed, and these files (path, sha256)."""
    plugins = load_plugins(_wanted_entry_points())
    for path, sha256 in files:
        _load_file(plugins, path, sha256)
    return plugins


def forget_plugins() -> None:
    """Look again at what is installed when it is next asked for."""
    _loaded.cache_clear()


def _wanted_entry_points() -> list[EntryPoint]:
    found = list(entry_points(group=GROUP))
    wanted = os.environ.get("VQZOO_PLUGINS")
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",") if name.strip()}
        missing = names - {point.name for point in found}
        if missing:
            have = ", ".join(sorted(point.name for point in found)) or "none"
            raise UsageError(f"VQZOO_PLUGINS names {', '.join(sorted(missing))}; installed: {have}")
        found = [point for point in found if point.name in names]
    return found


def load_plugins(points: Iterable[EntryPoint]) -> Plugins:
    """Load the plugins behind `points`; a broken one is a `PluginWarning` and a status."""
    plugins = Plugins()
    plugins.hooks.add_hookspecs(hookspecs)
    for point in sorted(points, key=lambda point: (_origin(point).distribution, point.name)):
        origin = _origin(point)
        try:
            brings = _register(plugins, point.load(), origin)
        except (Exception, SystemExit) as error:
            problem = cause(error)
            _warn(f"plugin {origin.entry_point} of {origin.distribution} is left out: {problem}")
            plugins.statuses.append(PluginStatus(origin, point.value, problem))
        else:
            plugins.statuses.append(PluginStatus(origin, point.value, None, tuple(brings)))
    return plugins


def _load_file(plugins: Plugins, path: Path, sha256: str) -> None:
    """Load a plugin file; one that the user named and that fails ends the command."""
    origin = file_origin(path, sha256)
    module = import_file(path, sha256)
    try:
        brings = _register(plugins, module, origin)
    except (Exception, SystemExit) as error:
        raise UsageError(f"plugin file {path} is refused: {cause(error)}") from error
    if not plugins.hooks.get_hookcallers(module):
        raise UsageError(
            f"plugin file {path} implements no hook: let it end in a function "
            "vqzoo_quantizers, marked @hookimpl, that returns [MyMethod()]"
        )
    plugins.statuses.append(PluginStatus(origin, str(path), None, tuple(brings)))


def _register(plugins: Plugins, plugin: Any, origin: Origin) -> list[str]:
    """Register one plugin whole, or raise before anything of it is in a registry."""
    check_contract(plugin)
    name = f"{origin.distribution}:{origin.entry_point}"
    if plugins.hooks.has_plugin(name):
        raise ValueError(f"{name} is declared twice")
    try:
        plugins.hooks.register(plugin, name=name)
        plugins.hooks.check_pending()
        kinds: list[tuple[Registry[Any], list[Any]]] = [
            (plugins.quantizers, _brought(plugins, name, "vqzoo_quantizers", Quantizer)),
            (plugins.transforms, _brought(plugins, name, "vqzoo_transforms", Transform)),
            (plugins.selectors, _brought(plugins, name, "vqzoo_layer_selectors", LayerSelector)),
            (plugins.packings, _brought(plugins, name, "vqzoo_packings", Packing)),
        ]
    except BaseException:
        if plugins.hooks.has_plugin(name):  # pluggy keeps what it refused halfway
            plugins.hooks.unregister(name=name)
        raise
    for registry, items in kinds:
        for item in items:
            registry.add(item.name, item, origin)
    return [f"{registry.kind} {item.name}" for registry, items in kinds for item in items]


def _brought(plugins: Plugins, name: str, hook: str, kind: type) -> list[Any]:
    """What one plugin's hook returns, checked."""
    items = list(_call(plugins, name, hook) or [])
    for item in items:
        if not isinstance(item, kind):
            made = f"the class {item.__name__}" if isinstance(item, type) else f"{item!r:.80}"
            raise TypeError(f"{hook} returned {made}, not an instance of {kind.__name__}")
        if not _NAME.fullmatch(getattr(item, "name", "")):
            raise ValueError(f"{type(item).__name__} needs a name of a-z, 0-9, - and _")
        if not isinstance(getattr(item, "version", ""), str):
            raise TypeError(f"the version of {type(item).__name__} is not text")
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
    known = point.dist.metadata.json  # a damaged installation's may lack either
    return Origin(point.name, str(known.get("name", "unknown")), str(known.get("version", "0")))


def _warn(text: str) -> None:
    warnings.warn(text, PluginWarning, stacklevel=3)
