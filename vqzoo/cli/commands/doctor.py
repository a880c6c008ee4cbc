"""`vqzoo doctor`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vqzoo.cli.options import OnlyJson
from vqzoo.cli.terminal import command, printable

if TYPE_CHECKING:
    from vqzoo.cli.diagnosis import Finding


@command
def doctor(json_: OnlyJson = False) -> None:
    """Report on the installation: versions, threads, devices, caches, plugins, and any problems.

    Paste the output into a bug report. It contains no tokens, and nothing is fetched or sent.
    """
    from vqzoo.cli.diagnosis import diagnose

    sections = diagnose()
    if json_:
        findings = {title: [asdict(finding) for finding in sections[title]] for title in sections}
        print(json.dumps(findings, indent=2))
        return
    for line in _as_lines(sections):
        print(printable(line))


def _as_lines(sections: "Mapping[str, Sequence[Finding]]") -> list[str]:
    width = max(len(finding.name) for findings in sections.values() for finding in findings)
    lines = []
    for title, findings in sections.items():
        rows = [f"  {finding.name:{width}}  {finding.text}" for finding in findings]
        lines += [title, *rows, ""]
    lines += ["problems", *(f"  {text}" for text in _problems(sections) or ["none found"])]
    home = str(Path.home())  # which often has the user's name
    return [line.replace(home, "~") if len(home) > 1 else line for line in lines]


def _problems(sections: "Mapping[str, Sequence[Finding]]") -> list[str]:
    return [
        f"{title}: {finding.name}: {finding.text}"
        for title, findings in sections.items()
        for finding in findings
        if finding.problem
    ]
