"""Folders and files stay small, and no module hides a public function."""

from collections import Counter
from pathlib import Path

import vqzoo

ROOT = Path(vqzoo.__file__).parents[1]
MOST_MODULES = 16  # in a package's folder, beside its subfolders
MOST_LINES = 400


def modules(*folders: str) -> list[Path]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > len(folders)
    return sorted(paths)


def test_no_package_holds_too_many_modules() -> None:
    counts = Counter(path.parent for path in modules("vqzoo", "plugins"))
    large = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_MODULES}
    assert large == {}


def test_no_file_is_too_long() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules("vqzoo", "plugins", "tools", "tests", "docs")
    }
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_top_level_module_is_named_like_a_public_function() -> None:
    """`import vqzoo.load` would replace the function `vqzoo.load` by the module."""
    package = ROOT / "vqzoo"
    names = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    names |= {path.stem for path in package.glob("*.py")}
    assert "compression" in names
    assert "errors" in names
    assert names & set(vqzoo.__all__) == set()
