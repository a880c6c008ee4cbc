"""What the docs tell readers to type works: every page's blocks, in order, in an empty folder."""

import os
import re
import shlex
import shutil
from pathlib import Path
from string import Template

import pytest
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app

ROOT = Path(vqzoo.__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(sh|python)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SLOW = "VQZOO_SLOW_DOCS"  # set it to run what takes minutes, too

HOOK = """

from vqzoo.plugin import hookimpl


@hookimpl
def vqzoo_quantizers():
    return [Mymethod()]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for the method that the reader is writing, and the examples."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs/examples", tmp_path, dirs_exist_ok=True)
    source = ROOT / "vqzoo/scaffold/template/src/package/quantizer.py.tmpl"
    words = {"name": "mymethod", "package": "mymethod", "class_name": "Mymethod"}
    (tmp_path / "mymethod.py").write_text(Template(source.read_text()).substitute(words) + HOOK)
    return tmp_path


def type_in(lines: str) -> None:
    for line in lines.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "pip":
            continue
        assert words[0] == "vqzoo", f"the docs tell readers to type {line!r}"
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page(page: Path) -> None:
    names: dict[str, object] = {}
    for language, info, text in BLOCK.findall(page.read_text()):
        if "title=" in info or ("slow" in info and not os.environ.get(SLOW)):
            continue
        if language == "sh":
            type_in(text)
        else:
            exec(compile(text, str(page), "exec"), names)


def test_pages_have_blocks() -> None:
    counts = {page.stem: len(BLOCK.findall(page.read_text())) for page in PAGES}
    assert counts["index"] >= 5
    assert counts["compress"] >= 4
    assert counts["write-a-plugin"] >= 8
