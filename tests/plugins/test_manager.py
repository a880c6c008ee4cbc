"""Plugins come in through entry points; a broken one is a warning, and everything else goes on."""

import ast
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

import vqzoo
from vqzoo.errors import UsageError
from vqzoo.plugin import CONTRACT_VERSION
from vqzoo.plugin.manager import (
    Plugins,
    PluginWarning,
    forget_plugins,
    installed_plugins,
    load_plugins,
)

ROOT = Path(vqzoo.__file__).parent

GOOD = """
import torch
from vqzoo.plugin import Code, Floats, Quantizer, hookimpl

class Whole(Quantizer):
    name = "{method}"
    def quantize(self, weight, options, context):
        return Code(tuple(weight.shape), {{"values": Floats.of(weight)}})
    def reconstruct(self, code, params):
        return params["values"]

@hookimpl
def vqzoo_quantizers():
    return [Whole()]
"""

BROKEN = {
    "import": ("raise ImportError('no libfoo')", "ImportError: no libfoo"),
    "exit": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "syntax": ("def (", "SyntaxError"),
    "unknown hook": (
        "from vqzoo.plugin import hookimpl\n@hookimpl\ndef vqzoo_quantisers(): return []",
        "unknown hook 'vqzoo_quantisers'",
    ),
    "unknown argument": (
        "from vqzoo.plugin import hookimpl\n"
        "@hookimpl\ndef vqzoo_run_finished(record): raise RuntimeError\n"
        "@hookimpl\ndef vqzoo_quantizers(colour): return []",
        "colour",
    ),
    "raising hook": (
        "from vqzoo.plugin import hookimpl\n@hookimpl\ndef vqzoo_quantizers(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "not a list": (
        "from vqzoo.plugin import hookimpl\n@hookimpl\ndef vqzoo_quantizers(): return 5",
        "TypeError",
    ),
    "a class, not an instance": (
        GOOD.format(method="whole").replace("[Whole()]", "[Whole]"),
        "returned the class Whole, not an instance of Quantizer",
    ),
    "a selector among quantizers": (
        GOOD.format(method="whole").replace("[Whole()]", "[Whole(), object()]"),
        "not an instance of Quantizer",
    ),
    "bad name": (GOOD.format(method="Not A Name"), "needs a name"),
    "no name": (GOOD.format(method="x").replace('name = "x"', "pass"), "needs a name"),
    "bad version": (GOOD.format(method="x").replace("def q", "version = 2\n    def q"), "version"),
    "a newer contract": (
        "vqzoo_contract = 99\n" + GOOD.format(method="x"),
        "written for contract 99, newer than 1, which this vqzoo speaks: upgrade vqzoo",
    ),
    "a newer contract with hooks of its own": (
        "vqzoo_contract = 2\nfrom vqzoo.plugin import hookimpl\n@hookimpl\n"
        "def vqzoo_from_the_future(): return []",
        "written for contract 2",
    ),
    "an older contract": (
        "vqzoo_contract = 0\n" + GOOD.format(method="x"),
        "written for contract 0; this vqzoo speaks 1 to 1: upgrade the plugin",
    ),
    "no number for a contract": (
        "vqzoo_contract = '1.0'\n" + GOOD.format(method="x"), "vqzoo_contract is '1.0'"
    ),
    "foreign options": (
        GOOD.format(method="x").replace("def quantize", "Options = dict\n    def quantize"),
        "x.Options does not derive from vqzoo.plugin.Options",
    ),
}  # fmt: skip

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay distributions down on a path of their own; gives back their entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def add(distribution: str, *, version: str = "1.2", **modules: str) -> list[EntryPoint]:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = [f"{name} = {name}" for name in modules]
        (info / "entry_points.txt").write_text("[vqzoo]\n" + "\n".join(lines) + "\n")
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        found = [d for d in distributions(path=[str(tmp_path)]) if d.name == distribution]
        return [point for d in found for point in d.entry_points]

    yield add
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_a_warning_and_the_others_go_on(kind: str, install: Install) -> None:
    text, cause = BROKEN[kind]
    points = install("acme-broken", brokenplugin=text)
    points += install("good-plugin", goodplugin=GOOD.format(method="whole-good"))
    with pytest.warns(PluginWarning) as caught:
        plugins = load_plugins(points)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "brokenplugin" in message
    assert "acme-broken" in message
    assert cause in message
    assert "\n" not in message
    assert plugins.quantizers.names() == ["whole-good"]
    by_name = {status.origin.entry_point: status for status in plugins.statuses}
    assert cause in (by_name["brokenplugin"].problem or "")
    assert by_name["goodplugin"].problem is None
    assert by_name["goodplugin"].brings == ("method whole-good",)
    assert by_name["goodplugin"].origin.version == "1.2"


def test_a_plugin_that_states_the_contract_of_today(install: Install) -> None:
    text = f"vqzoo_contract = {CONTRACT_VERSION}\n" + GOOD.format(method="fine")
    assert load_plugins(install("good-plugin", goodplugin=text)).quantizers.names() == ["fine"]


def test_nothing_of_a_broken_plugin_stays_behind(install: Install) -> None:
    text, _ = BROKEN["unknown argument"]
    with pytest.warns(PluginWarning):
        plugins = load_plugins(install("acme-broken", brokenplugin=text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugins.notify("vqzoo_run_finished", record={}, folder="")


def test_one_of_two_plugins_in_a_distribution_breaks(install: Install) -> None:
    points = install(
        "both", brokenplugin="raise KeyError('x')", goodplugin=GOOD.format(method="m1")
    )
    with pytest.warns(PluginWarning, match="brokenplugin of both is left out: KeyError"):
        plugins = load_plugins(points)
    assert plugins.quantizers.names() == ["m1"]


def test_an_entry_point_declared_twice(install: Install) -> None:
    points = install("good-plugin", goodplugin=GOOD.format(method="fine"))
    with pytest.warns(PluginWarning, match="good-plugin:goodplugin is declared twice"):
        assert load_plugins(points + points).quantizers.get("fine").item.name == "fine"


def test_a_module_that_is_not_there(install: Install, tmp_path: Path) -> None:
    points = install("gone", goneplugin="")
    (tmp_path / "goneplugin.py").unlink()
    with pytest.warns(PluginWarning, match="ModuleNotFoundError.*goneplugin"):
        assert load_plugins(points).quantizers.names() == []


def test_an_entry_point_without_distribution_or_sense() -> None:
    points = [EntryPoint("lost", "not a module", "vqzoo"), EntryPoint("os", "os", "vqzoo")]
    with pytest.warns(PluginWarning, match="lost of unknown is left out"):
        plugins = load_plugins(points)
    assert [status.problem is None for status in plugins.statuses] == [False, True]


def test_a_distribution_without_a_name(install: Install, tmp_path: Path) -> None:
    points = install("good-plugin", goodplugin=GOOD.format(method="fine"))
    nameless = tmp_path / "nameless-1.dist-info"
    nameless.mkdir()
    (nameless / "METADATA").write_text("Metadata-Version: 2.1\n")
    (nameless / "entry_points.txt").write_text("[vqzoo]\nodd = nowhere_at_all\n")
    points += [
        point
        for d in distributions(path=[str(tmp_path)])
        for point in d.entry_points
        if point.name == "odd"
    ]
    assert len(points) == 2
    with pytest.warns(PluginWarning, match="odd"):
        assert load_plugins(points).quantizers.names() == ["fine"]


@pytest.fixture
def clash(install: Install) -> Plugins:
    """`same` claimed by two distributions, `mine` by one."""
    both = GOOD.replace("[Whole()]", "[Whole(), Mine()]") + (
        "\nclass Mine(Whole):\n    name = 'mine'\n"
    )
    points = install("dist-a", plugina=both.format(method="same"))
    points += install("dist-b", pluginb=GOOD.format(method="same"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_plugins(points)


def test_a_name_claimed_twice_is_ambiguous_only_when_used_bare(clash: Plugins) -> None:
    with pytest.raises(UsageError, match="dist-a:same or dist-b:same"):
        clash.quantizers.get("same")
    assert clash.quantizers.get("dist-a:same").origin.distribution == "dist-a"
    assert clash.quantizers.get("dist-b:same").origin.distribution == "dist-b"
    assert clash.quantizers.get("mine").name == "mine"
    assert set(clash.quantizers.clashes()) == {"same"}
    with pytest.raises(UsageError, match="no method called 'dist-c:same'"):
        clash.quantizers.get("dist-c:same")


def test_a_name_claimed_twice_by_one_distribution(install: Install) -> None:
    points = install("twice", p1=GOOD.format(method="same"), p2=GOOD.format(method="same"))
    with pytest.raises(UsageError, match="claimed twice by twice"):
        load_plugins(points).quantizers.get("twice:same")


def test_a_transform_and_a_quantizer_of_one_name(install: Install) -> None:
    transform = """
from vqzoo.plugin import Code, Transform, hookimpl

class Same(Transform):
    name = "same"
    def forward(self, weight, options, context):
        return weight, Code(tuple(weight.shape), {})
    def reconstruct(self, code, params):
        return params["weight"]

@hookimpl
def vqzoo_transforms():
    return [Same()]
"""
    points = install("dist-q", pluginq=GOOD.format(method="same"))
    points += install("dist-t", plugint=transform)
    plugins = load_plugins(points)
    assert plugins.quantizers.get("same").origin.distribution == "dist-q"
    assert plugins.transforms.get("same").origin.distribution == "dist-t"
    assert plugins.method("dist-q:same").origin.distribution == "dist-q"
    assert plugins.method("dist-t:same").origin.distribution == "dist-t"


def test_an_unknown_name_gives_close_matches_and_the_list(clash: Plugins) -> None:
    with pytest.raises(UsageError) as caught:
        clash.quantizers.get("sme")
    assert "did you mean same?" in str(caught.value)
    assert "mine, same" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_plugins_an_unknown_name_says_that_none_brings_any() -> None:
    with pytest.raises(UsageError, match="no plugin brings any"):
        load_plugins([]).quantizers.get("anything")


def test_an_observer_that_raises_is_a_warning_and_the_next_is_called(install: Install) -> None:
    observer = """
from vqzoo.plugin import hookimpl
seen = []

@hookimpl
def vqzoo_layer_compressed(layer, done):
    seen.append((layer["name"], done))
    if {raises}:
        raise RuntimeError("fire\\nand smoke")
"""
    points = install("loud", loudplugin=observer.format(raises=True))
    points += install("quiet", quietplugin=observer.format(raises=False))
    plugins = load_plugins(points)
    with pytest.warns(PluginWarning) as caught:
        plugins.notify("vqzoo_layer_compressed", layer={"name": "fc"}, done=1, total=2)
    assert [str(w.message) for w in caught] == [
        "plugin loud:loudplugin: vqzoo_layer_compressed failed: RuntimeError: fire and smoke"
    ]
    assert sys.modules["loudplugin"].seen == [("fc", 1)]
    assert sys.modules["quietplugin"].seen == [("fc", 1)]


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    """`installed_plugins` forgets what it found, before and after."""
    forget_plugins()
    yield
    forget_plugins()


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_names_the_plugins_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [status.origin.entry_point for status in installed_plugins().statuses]
    assert len(everything) >= 5
    wanted = everything[1:3]
    forget_plugins()
    monkeypatch.setenv("VQZOO_PLUGINS", f" {wanted[0]} ,{wanted[1]},")
    assert [s.origin.entry_point for s in installed_plugins().statuses] == sorted(wanted)


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_empty_loads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQZOO_PLUGINS", "")
    plugins = installed_plugins()
    assert plugins.statuses == []
    assert plugins.quantizers.names() == plugins.packings.names() == []


@pytest.mark.usefixtures("fresh_cache")
def test_vqzoo_plugins_with_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQZOO_PLUGINS", "no-such-plugin")
    with pytest.raises(UsageError, match="VQZOO_PLUGINS names no-such-plugin; installed: "):
        installed_plugins()


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("command", ["--help", "methods", "plugins"])
def test_the_command_line_works_without_any_plugin(command: str, vqzoo) -> None:
    done = vqzoo(command, VQZOO_PLUGINS="")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.usefixtures("fresh_cache")
def test_the_command_line_lists_the_methods_of_the_plugins_that_are_loaded(vqzoo) -> None:
    method = installed_plugins().quantizers.names()[0]
    entry_point = installed_plugins().quantizers.get(method).origin.entry_point
    forget_plugins()
    done = vqzoo("methods", VQZOO_PLUGINS=entry_point)
    assert done.exit_code == 0, done.stderr
    assert re.search(rf"\b{method}\b", done.stdout)


def test_the_built_ins_come_through_entry_points() -> None:
    plugins = installed_plugins()
    assert all(status.problem is None for status in plugins.statuses)
    for registry in (plugins.quantizers, plugins.selectors, plugins.packings):
        assert list(registry)
        for entry in registry:
            module = type(entry.item).__module__
            assert not module.startswith("vqzoo."), f"{entry.name} lives in the core"


def sources() -> list[Path]:
    found = sorted(ROOT.rglob("*.py"))
    assert len(found) > 30
    return found


def test_the_core_imports_no_plugin() -> None:
    packages = {
        type(entry.item).__module__.partition(".")[0]
        for registry in (installed_plugins().quantizers, installed_plugins().selectors)
        for entry in registry
    } | {path.name for path in (ROOT.parent / "plugins").glob("vqzoo_*")}
    assert "vqzoo" not in packages
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] not in packages, f"{path} imports {name}"


def test_the_core_names_no_method() -> None:
    methods = set(installed_plugins().quantizers.names())
    methods |= set(installed_plugins().transforms.names())
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in methods, f"{path}:{node.lineno} names {node.value}"
