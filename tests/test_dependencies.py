"""Every third-party module that is imported is declared in pyproject.toml."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import vqzoo

ROOT = Path(vqzoo.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Distributions whose name is not that of the module; elsewhere only "-" and "_" differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "coreai": "coreai-core",
    "faiss": "faiss-cpu",
    "importlinter": "import-linter",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
# torch for CUDA brings triton along; vqzoo imports it only if it finds it.
BROUGHT_BY_TORCH = {"triton"}
# Folder -> the extras whose packages it may import besides the dependencies.
EXTRAS = {
    "vqzoo": ("onnx", "coreml", "report", "openvino", "executorch", "coreai"),
    "plugins": ("onnx", "coreml", "ray", "slurm"),
    "tools": (),
    "docs": ("docs", "observe"),
    "tests": (
        "test",
        "browser",
        "coreml",
        "ray",
        "openvino",
        "executorch",
        "coreai",
        "palettes-test",
        "slurm",
        "observe",
        "cluster-test",
    ),
    "tests/benchmarks": ("test", "cuda-bench", "codec-bench", "ray"),
}


def declared(*extras: str) -> set[str]:
    """Normalized names of the distributions that the project and the extras declare."""
    names: set[str] = set()
    requirements = list(PROJECT["dependencies"])
    for extra in extras:
        requirements += PROJECT["optional-dependencies"][extra]
    for requirement in requirements:
        if inner := re.match(r"vqzoo\[(.+)\]", requirement):
            names |= declared(*inner[1].split(","))
        elif name := re.match(r"[\w.-]+", requirement):
            names.add(name[0].lower().replace("_", "-"))
    return names


def third_party_imports(folder: Path, *, without: Path | None = None) -> dict[str, Path]:
    """Module -> a file that imports it, for every module from outside the repository."""
    imports: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        if without is not None and path.is_relative_to(without):
            continue
        for node in imported_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                name = module.partition(".")[0]
                if name not in sys.stdlib_module_names and not is_local(name, path):
                    imports.setdefault(name, path)
    return imports


def imported_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those of `if TYPE_CHECKING:`, which serve annotations alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        test = child.test if isinstance(child, ast.If) else None
        if not (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"):
            yield from imported_at_run_time(child)


def is_local(module: str, path: Path) -> bool:
    """Whether a module lies in the repository: at its root, among the plugins or beside `path`."""
    roots = (ROOT, ROOT / "plugins", ROOT / "docs/example_plugin/src", path.parent)
    return any((root / module).is_dir() or (root / f"{module}.py").is_file() for root in roots)


@pytest.mark.parametrize("folder", EXTRAS)
def test_every_import_is_declared(folder: str) -> None:
    benchmarks = ROOT / "tests/benchmarks"
    without = benchmarks if folder == "tests" else None
    known = declared(*EXTRAS[folder])
    undeclared = {
        module: str(path.relative_to(ROOT))
        for module, path in third_party_imports(ROOT / folder, without=without).items()
        if DISTRIBUTIONS.get(module, module).lower().replace("_", "-") not in known
        and module not in BROUGHT_BY_TORCH
    }
    assert undeclared == {}


def test_an_undeclared_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import os\ndef f():\n    from no_such.thing import x\n")
    assert third_party_imports(tmp_path) == {"no_such": tmp_path / "module.py"}
    assert "no-such" not in declared("test")
