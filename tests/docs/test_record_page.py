"""The published schema and the page about report.json follow the record's model."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

from tools.write_report_schema import SCHEMA, schema_text
from vqzoo.report.record import Record


def test_the_schema_is_that_of_the_record() -> None:
    text = SCHEMA.read_text(encoding="utf-8")
    schema = json.loads(text)
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert schema == Record.model_json_schema(), "run `python -m tools.write_report_schema`"
    assert text == schema_text()


def paths_of(value: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all keys of a JSON value, `layers[].codes.count`."""
    if isinstance(value, list):
        for item in value:
            yield from paths_of(item, prefix + "[]")
    elif isinstance(value, dict):
        for key, item in value.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path
            if key not in ("options", "skipped", "versions"):  # keyed by names
                yield from paths_of(item, path)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    hooks = importlib.import_module("site_hooks")
    yield hooks.on_page_markdown((ROOT / "docs/report.md").read_text(encoding="utf-8"))
    del sys.modules["site_hooks"]


def test_the_page_describes_every_key_of_a_report(page: str, made: Path) -> None:
    described = set()
    for section in re.split(r"^## ", page, flags=re.MULTILINE):
        heading, _, table = section.partition("\n")
        prefixes = [f"{path}." for path in re.findall(r"`([^`]+)`", heading)] or [""]
        for key, meaning in re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", table, re.MULTILINE):
            assert meaning.endswith((".", "`"))
            described |= {prefix + key for prefix in prefixes}
    report = json.loads((made / "report.json").read_text())
    assert set(paths_of(report)) <= described
    assert {"finetuning.history[].loss", "repair.divergence.after", "stages[].bytes"} <= described
