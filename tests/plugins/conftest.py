"""Plugins that exist for one test."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest
from installing import Install

from vqzoo.plugin.manager import forget_plugins


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


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    """`installed_plugins` forgets what it found, before and after."""
    forget_plugins()
    yield
    forget_plugins()
