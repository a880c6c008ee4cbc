"""The state of an installation, as a bug report needs it. Nothing of it comes from a network."""

import locale
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqzoo.errors import PluginWarning, cause
from vqzoo.report.formatting import megabytes

if TYPE_CHECKING:
    from vqzoo.plugin.manager import Plugins, PluginStatus

# Extras that add something for users, and packages that other installations may lack.
_EXTRAS = ("onnx", "coreml", "openvino", "executorch", "coreai", "report")
_OPTIONAL = ("torchvision", "triton")
_VARIABLES = (
    "VQZOO_PLUGINS",
    "VQZOO_CACHE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
    "LANG",
    "LC_ALL",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "FORCE_COLOR",
)


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        name: what was examined.
        text: what was found, for people.
        problem: whether something is wrong.
        data: what was found, for programs, where that is more than the text.
    """

    name: str
    text: str
    problem: bool = False
    data: Any = None


def diagnose() -> dict[str, list[Finding]]:
    """Examine the installation, section by section.

    What cannot be examined becomes a finding with the cause: a broken installation is what a report
    is for.
    """
    sections: dict[str, Callable[[], Iterable[Finding]]] = {
        "program": _program,
        "packages": _packages,
        "extras": _extras,
        "threads": _threads,
        "devices": _devices,
        "caches": lambda: [
            *_guarded("numba", _numba_cache),
            *_guarded("hub", _hub_cache),
            *_guarded("statistics", _statistics_cache),
        ],
        "plugins": _plugins,
        "terminal": _terminal,
        "environment": _environment,
    }
    return {title: _guarded(title, examine) for title, examine in sections.items()}


def _guarded(name: str, examine: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(examine())
    except (Exception, SystemExit) as error:
        return [Finding(name, cause(error), problem=True)]


def _program() -> Iterator[Finding]:
    import vqzoo

    yield Finding("vqzoo", version("vqzoo"))
    yield Finding("folder", str(Path(vqzoo.__file__).parent))
    yield Finding("python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield Finding("system", platform.platform())


def _packages() -> Iterator[Finding]:
    """The packages that vqzoo requires, and those that it or torch uses where they are there."""
    for requirement in requires("vqzoo") or []:
        if "extra ==" not in requirement:
            package = _package(requirement)
            installed = _version(package)
            yield Finding(package, installed or "not installed", problem=installed is None)
    for package in _OPTIONAL:
        yield Finding(package, _version(package) or "not installed")


def _extras() -> Iterator[Finding]:
    for extra in _EXTRAS:
        marker = re.compile(rf"extra == ['\"]{extra}['\"]")
        packages = [_package(text) for text in requires("vqzoo") or [] if marker.search(text)]
        versions = {package: _version(package) for package in packages}
        missing = [package for package, installed in versions.items() if installed is None]
        text = ", ".join(f"{package} {installed}" for package, installed in versions.items())
        if missing:
            text = f"{', '.join(missing)} not installed: pip install 'vqzoo[{extra}]'"
        yield Finding(extra, text, data=versions)


def _package(requirement: str) -> str:
    """The name in a requirement such as "torch>=2.6"."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _threads() -> Iterator[Finding]:
    import torch

    from vqzoo.numerics.threads import thread_count

    counts = {"cores": os.cpu_count(), "kernels": thread_count(), "torch": torch.get_num_threads()}
    for name, count in counts.items():
        yield Finding(name, str(count), data=count)


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("cpu", f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        yield Finding("cuda", "no device" if built else "this torch is built without CUDA")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.1f} GiB"
        capability = f"compute capability {device.major}.{device.minor}"
        yield Finding(f"cuda:{index}", f"{device.name}, {memory}, {capability}")
    if torch.backends.mps.is_built():
        yield Finding("mps", "usable" if torch.backends.mps.is_available() else "no device")


def _numba_cache() -> Iterator[Finding]:
    """Where numba keeps compiled kernels: beside vqzoo's modules, or in one folder for all."""
    import vqzoo
    from vqzoo.numerics.kernels.seeding import seed_plus_plus

    if seed_plus_plus.stats.cache_path is None:
        text = "no cache folder is writable: set NUMBA_CACHE_DIR to a folder that is"
        yield Finding("numba", text, problem=True, data={"folder": None, "writable": False})
        return
    path = Path(seed_plus_plus.stats.cache_path)
    package = Path(vqzoo.__file__).parent
    folder = package if path.is_relative_to(package) else path.parent
    compiled = [file for pattern in ("*.nbi", "*.nbc") for file in folder.rglob(pattern)]
    yield _cache("numba", folder, sum(file.stat().st_size for file in compiled))


def _hub_cache() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    files = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    yield _cache("hub", folder, sum(file.lstat().st_size for file in files))


def _statistics_cache() -> Iterator[Finding]:
    """Where calibration keeps second-order statistics."""
    from vqzoo.artifact.files import cache_folder

    folder = cache_folder()
    files = (file for file in folder.rglob("*") if file.is_file())
    yield _cache("statistics", folder, sum(file.stat().st_size for file in files))


def _cache(name: str, folder: Path, size: int) -> Finding:
    """A cache's folder, and whether it, or the folder that it would be created in, is writable."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    problem = None
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        problem = cause(error)
    free = shutil.disk_usage(existing).free
    state = f"not writable ({problem})" if problem else "writable"
    return Finding(
        name,
        f"{folder}: {state}, {megabytes(size)}, {free / 1e9:,.1f} GB free",
        problem=problem is not None,
        data={
            "folder": str(folder),
            "writable": problem is None,
            "problem": problem,
            "bytes": size,
            "free_bytes": free,
        },
    )


def _plugins() -> Iterator[Finding]:
    from vqzoo.plugin.manager import installed_plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the statuses have the same text
        plugins = installed_plugins()
    for status in plugins.statuses:
        origin = status.origin
        state = f"left out: {status.problem}" if status.problem else provided(status) or "nothing"
        yield Finding(
            origin.entry_point,
            f"{origin.distribution} {origin.version}, {status.module}: {state}",
            problem=status.problem is not None,
            data={
                "package": origin.distribution,
                "version": origin.version,
                "module": status.module,
                "provides": list(status.provides),
                "problem": status.problem,
            },
        )
    for line in ambiguous_names(plugins):
        yield Finding("ambiguous", line, problem=True)


def provided(status: "PluginStatus") -> str:
    """What a plugin provides, by kind: "method km, pq; packing bits"."""
    names: dict[str, list[str]] = {}
    for item in status.provides:
        kind, _, name = item.rpartition(" ")
        names.setdefault(kind, []).append(name)
    return "; ".join(f"{kind} {', '.join(of_kind)}" for kind, of_kind in names.items())


def ambiguous_names(plugins: "Plugins") -> list[str]:
    """A line for each name that several plugins claim, with the names that tell them apart."""
    lines = []
    for registry in plugins.registries:
        for name, origins in registry.clashes().items():
            choices = " or ".join(f"{origin.distribution}:{name}" for origin in origins)
            lines.append(f"{registry.kind} {name} is ambiguous: say {choices}")
    return lines


def _terminal() -> Iterator[Finding]:
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        yield Finding(name, f"{stream.encoding}, {'a terminal' if stream.isatty() else 'a pipe'}")
    yield Finding("locale", locale.getpreferredencoding(False))
    yield Finding("columns", str(shutil.get_terminal_size().columns))


def _environment() -> Iterator[Finding]:
    """The environment variables that change what vqzoo does, without credentials in addresses."""
    for name in _VARIABLES:
        if name in os.environ:
            yield Finding(name, re.sub(r"//[^/@\s]*@", "//", os.environ[name]))
