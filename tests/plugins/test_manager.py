"""Plugins load by their entry points; a broken one is a warning, and the others still load."""

import sys
import warnings
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest
from installing import GOOD, Install

from vqzoo.errors import PluginWarning, UsageError
from vqzoo.plugin import CONTRACT_VERSION
from vqzoo.plugin.manager import load_plugins

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
        "written for contract 99, this vqzoo supports up to 1: upgrade vqzoo",
    ),
    "a newer contract with new hooks": (
        "vqzoo_contract = 2\nfrom vqzoo.plugin import hookimpl\n@hookimpl\n"
        "def vqzoo_from_the_future(): return []",
        "written for contract 2",
    ),
    "an older contract": (
        "vqzoo_contract = 0\n" + GOOD.format(method="x"),
        "written for contract 0, this vqzoo supports 1 to 1: upgrade the plugin",
    ),
    "no number for a contract": (
        "vqzoo_contract = '1.0'\n" + GOOD.format(method="x"), "vqzoo_contract is '1.0'"
    ),
    "foreign options": (
        GOOD.format(method="x").replace("def quantize", "Options = dict\n    def quantize"),
        "x.Options does not derive from vqzoo.plugin.Options",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_a_warning_and_the_others_load(kind: str, install: Install) -> None:
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
    assert by_name["goodplugin"].provides == ("method whole-good",)
    assert by_name["goodplugin"].origin.version == "1.2"


def test_a_plugin_that_names_the_current_contract(install: Install) -> None:
    text = f"vqzoo_contract = {CONTRACT_VERSION}\n" + GOOD.format(method="fine")
    assert load_plugins(install("good-plugin", goodplugin=text)).quantizers.names() == ["fine"]


def test_nothing_of_a_broken_plugin_stays_registered(install: Install) -> None:
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
    for registry in plugins.registries:
        with pytest.raises(UsageError, match=r"brokenplugin of both .*KeyError"):
            registry.get("absent")


def test_an_entry_point_declared_twice(install: Install) -> None:
    points = install("good-plugin", goodplugin=GOOD.format(method="fine"))
    with pytest.warns(PluginWarning, match="good-plugin:goodplugin is declared twice"):
        assert load_plugins(points + points).quantizers.get("fine").item.name == "fine"


def test_a_module_that_does_not_exist(install: Install, tmp_path: Path) -> None:
    points = install("gone", goneplugin="")
    (tmp_path / "goneplugin.py").unlink()
    with pytest.warns(PluginWarning, match="ModuleNotFoundError.*goneplugin"):
        assert load_plugins(points).quantizers.names() == []


def test_an_entry_point_without_a_distribution_or_a_valid_module() -> None:
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


def test_an_observer_that_raises_is_a_warning_and_the_next_one_is_called(install: Install) -> None:
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
