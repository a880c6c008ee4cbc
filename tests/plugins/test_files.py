"""Plugins in single files: used inside a block, recorded as files, never installed."""

from pathlib import Path

import pytest
from installing import GOOD

from vqzoo.errors import UsageError
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins


def write(folder: Path, text: str, name: str = "mymethod.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_is_loaded_only_inside_the_block(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.format(method="mine"))
    before = installed_plugins()
    with plugin_files([path]):
        entry = installed_plugins().quantizers.get("mine")
        assert entry.origin.distribution == "file:mymethod.py"
        assert len(entry.origin.version) == 12
        assert installed_plugins().quantizers.get("file:mymethod.py:mine") == entry
        assert set(before.quantizers.names()) < set(installed_plugins().quantizers.names())
        assert installed_plugins().statuses[-1].provides == ("method mine",)
    assert installed_plugins() is before
    assert "mine" not in before.quantizers.names()


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.format(method="first"))
    with plugin_files([path]):
        assert "first" in installed_plugins().quantizers.names()
        write(tmp_path, GOOD.format(method="second"))
        assert "second" in installed_plugins().quantizers.names()
        assert "first" not in installed_plugins().quantizers.names()


def test_two_files_one_of_them_twice(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD.format(method="one"), "one.py")
    two = write(tmp_path, GOOD.format(method="two"), "two.py")
    with plugin_files([one, two]), plugin_files([str(one)]):
        assert {"one", "two"} <= set(installed_plugins().quantizers.names())


def test_a_file_cannot_take_a_built_ins_name(tmp_path: Path) -> None:
    name = installed_plugins().quantizers.names()[0]
    path = write(tmp_path, GOOD.format(method=name))
    with plugin_files([path]):
        with pytest.raises(UsageError, match=f"file:mymethod.py:{name}"):
            installed_plugins().quantizers.get(name)
        mine = installed_plugins().quantizers.get(f"file:mymethod.py:{name}")
        assert mine.origin.entry_point == "mymethod"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\n\nraise RuntimeError('out of\\nideas')", "line 3: RuntimeError: out of"),
        ("x = 1\ndef (", "failed at line 2: SyntaxError"),
        ("import sys; sys.exit(3)", "failed at line 1: SystemExit: 3"),
        ("x = 1", "implements no hook"),
        ("vqzoo_contract = 9\n" + GOOD.format(method="x"), "is refused: IncompatiblePlugin"),
        (GOOD.format(method="Bad Name"), "is refused: ValueError: Whole needs a name"),
    ],
)  # fmt: skip
def test_a_file_that_fails_is_a_usage_error(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with plugin_files([path]):
        for _ in range(2):  # not only when it is first read
            with pytest.raises(UsageError, match=r"mymethod\.py") as caught:
                installed_plugins()
            assert message in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_file_that_does_not_exist_or_is_not_python(tmp_path: Path) -> None:
    missing = plugin_files(["nowhere.py"])
    with pytest.raises(UsageError, match="there is no plugin file nowhere"), missing:
        pass
    notes = write(tmp_path, "x", "notes.txt")
    with plugin_files([notes]), pytest.raises(UsageError, match=r"\.py"):
        installed_plugins()
