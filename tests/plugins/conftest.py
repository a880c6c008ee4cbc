"""Plugins that are installed for one test."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest
from installing import Install

from vqzoo.plugin.manager import forget_plugins


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write distributions into a folder on the path; a call returns their entry points."""
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
        installed = distributions(path=[str(tmp_path)])
        return [point for d in installed if d.name == distribution for point in d.entry_points]

    yield add
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    """Make `installed_plugins` load the plugins anew, before and after the test."""
    forget_plugins()
    yield
    forget_plugins()
