"""The picture of a terminal shows a command and its output, and loads nothing from the web."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.terminal_picture import main


def test_the_picture_of_a_command(tmp_path: Path) -> None:
    target = tmp_path / "picture.svg"
    main([str(target), sys.executable, "-c", r"print('\x1b[1mratio\x1b[0m 16.7x')"])
    text = "".join(ElementTree.parse(target).getroot().itertext())
    assert "$" in text
    assert "ratio" in text
    assert "16.7x" in text
    assert "url(http" not in target.read_text()


def test_a_command_that_fails_leaves_no_picture(tmp_path: Path) -> None:
    target = tmp_path / "picture.svg"
    with pytest.raises(SystemExit, match="failed"):
        main([str(target), sys.executable, "-c", "raise SystemExit(3)"])
    assert not target.exists()
