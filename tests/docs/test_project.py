"""The files for contributors agree with each other and with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI_RUN = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def recipes() -> dict[str, list[str]]:
    """The commands of each recipe of the justfile."""
    commands: dict[str, list[str]] = {}
    for line in (ROOT / "justfile").read_text().splitlines():
        if heading := re.match(r"(\w+)[^:=]*:$", line):
            commands[heading[1]] = []
        elif line.startswith("    "):
            commands[list(commands)[-1]].append(line.strip())
    return commands


def test_just_runs_what_ci_runs() -> None:
    just = recipes()
    assert just["test"] == ["pytest {{ARGUMENTS}}"]
    assert any(line.startswith("pytest ") for line in CI_RUN)
    assert [line for line in CI_RUN if line in just["check"]] == just["check"]
    assert any(line.startswith(just["docs"][0]) for line in CI_RUN)
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for name in ("check", "docs", "bench"):
        assert f"| `just {name}` | `{' && '.join(just[name])}`" in contributing


def test_the_workflow_runs_ci_on_every_supported_python() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    prefix = "Programming Language :: Python :: "
    supported = [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert job["strategy"]["matrix"]["python"] == supported
    assert job["steps"][-1] == {"run": "bash .ci/run"}


def test_pre_commit_runs_the_checks() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    for command in recipes()["check"]:
        program = command.removesuffix(" .").removesuffix(" --check")
        assert any(entry.startswith(program) for entry in entries), command


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name) for name in releases[1:])
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= HEADINGS


def test_bug_reports_ask_for_what_doctor_prints() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    field = next(field for field in form["body"] if field["id"] == "doctor")
    assert "vqzoo doctor" in field["attributes"]["label"]
    assert field["validations"]["required"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert targets or name == "CHANGELOG.md"
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:docs|tests|plugins|tools)/[\w./]*)`", text)
    assert len(paths) >= 8
    assert [path for path in paths if "NAME" not in path and not Path(ROOT, path).exists()] == []


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
