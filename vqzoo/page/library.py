"""Vega-Lite as one piece of JavaScript, from the Python package that carries it."""

import importlib.util
from importlib.metadata import version

from vqzoo.artifact.files import cache_folder, write_text
from vqzoo.errors import UsageError

_PACKAGE = "vl-convert-python"
_MISSING = "the page needs the package vl-convert-python: pip install 'vqzoo[report]'"


def has_library() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("vl_convert") is not None


def chart_library() -> str:
    """Vega, Vega-Lite and vega-embed as a script that defines `vegaEmbed`.

    Bundling takes seconds, so the script is kept in vqzoo's cache folder, by its version.

    Raises:
        UsageError: the package is not installed.
    """
    if not has_library():
        raise UsageError(_MISSING)
    kept = cache_folder() / f"vega-{version(_PACKAGE)}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    import vl_convert

    script = vl_convert.javascript_bundle()
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, script)
    return script
