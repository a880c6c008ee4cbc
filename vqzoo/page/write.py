"""Writes the page: template, styles, scripts, data and charts in one file."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import write_text
from vqzoo.errors import UsageError
from vqzoo.page.collect import Collection, Problem, collect
from vqzoo.page.contents import LAYER_COLUMNS, run_entry
from vqzoo.page.examples import ExampleOptions, Examples, find_examples
from vqzoo.page.library import chart_library
from vqzoo.page.retrieval_points import retrieval_figures
from vqzoo.progress import SilentWatcher, Watcher

PAGE_FILE = "report.html"
_GENERATOR = '<meta name="generator" content="vqzoo">'
_SCRIPTS = ("format.js", "tables.js", "charts.js", "details.js", "page.js")
_CHARTS = ("pareto.json", "layers.json")


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        path: the file.
        runs: how many artifacts it shows.
        problems: the artifacts that it cannot show.
    """

    path: Path
    runs: int
    problems: tuple[Problem, ...]


def write_page(
    folders: Sequence[Path],
    out: Path,
    *,
    examples: ExampleOptions | None = None,
    watcher: Watcher | None = None,
) -> Page:
    """Write one HTML file that shows the records of all artifacts in some folders.

    The file needs no network: it holds the charts' library, too. What it says depends on the
    records alone, so the same folders give the same bytes.

    Args:
        folders: artifacts, or folders of artifacts at any depth.
        out: the file to write; a page that vqzoo wrote before is replaced.
        examples: which pictures of changed answers to look for; None for none.
        watcher: receives progress.

    Raises:
        UsageError: a folder has no artifact, `out` is another file, or the extra `report` is not
            installed.
        ArtifactError: no artifact has a usable record.
    """
    check_page_target(out)
    collection, text = make_page(folders, examples=examples, watcher=watcher)
    save_page(text, out)
    return Page(out, len(collection.runs), collection.problems)


def make_page(
    folders: Sequence[Path],
    *,
    examples: ExampleOptions | None = None,
    watcher: Watcher | None = None,
) -> tuple[Collection, str]:
    """The page as text, and what it shows; see `write_page`."""
    library = chart_library()
    collection = collect(folders)
    pictures: Sequence[Examples | str | None] = [None] * len(collection.runs)
    if examples is not None:
        pictures = find_examples(collection.runs, examples, watcher or SilentWatcher())
    retrieval, problems = retrieval_figures(collection.runs)
    collection = replace(collection, problems=(*collection.problems, *problems))
    return collection, _render(_contents(collection, pictures, retrieval), library)


def save_page(text: str, out: Path) -> None:
    """Write a page into a file that `check_page_target` accepts."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)


def check_page_target(out: Path) -> None:
    """Refuse to replace anything but a page of vqzoo's.

    Raises:
        UsageError: `out` is a folder, or a file that vqzoo did not write.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder: choose a file, such as --out {out / PAGE_FILE}")
    if out.exists():
        with out.open("rb") as file:
            if _GENERATOR.encode() not in file.read(2000):
                raise UsageError(f"{out} exists and is no page of vqzoo's: choose another --out")


def _contents(
    collection: Collection,
    pictures: Sequence[Examples | str | None],
    retrieval: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "runs": [
            run_entry(run, examples) | figures
            for run, examples, figures in zip(collection.runs, pictures, retrieval, strict=True)
        ],
        "layer_columns": LAYER_COLUMNS,
        "problems": [[problem.name, problem.reason] for problem in collection.problems],
        "charts": {name.removesuffix(".json"): json.loads(_asset(name)) for name in _CHARTS},
        "version": version("vqzoo"),
    }


def _render(contents: Mapping[str, Any], library: str) -> str:
    scripts = [_inside_script(library), _inside_script("".join(map(_asset, _SCRIPTS)))]
    networks = list(dict.fromkeys(run["network"] for run in contents["runs"]))
    title = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    values = {
        "generator": _GENERATOR,
        "policy": _policy(scripts),
        "title": escape(f"{title}: what compression cost"),
        "style": _asset("page.css"),
        "data": _inside_json(contents),
        "library": scripts[0],
        "script": scripts[1],
    }
    # One pass: what is put in is never searched for further placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _asset("page.html"))


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy under which these scripts run, no others, and nothing is loaded."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _inside_json(value: Any) -> str:
    """JSON that HTML cannot end early: no <, > or & is in it, whatever the strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inside_script(script: str) -> str:
    """JavaScript that HTML cannot end early."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
