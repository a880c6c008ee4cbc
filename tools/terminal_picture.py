"""Draw what a command prints: `python -m tools.terminal_picture FILE.svg vqzoo run ...`.

The command runs in an empty folder, in a terminal of 80 columns; the picture shows the command line
and its standard output, with colors. The documentation's picture is made by

    python -m tools.terminal_picture docs/images/terminal.svg \\
        vqzoo run alexnet_mini.fmnist --method pq
"""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from vqzoo.artifact.files import write_text

_COLUMNS = 80
_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def output_of(command: list[str]) -> str:
    """What a command prints to standard output, ANSI escapes included; it must succeed."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS)}
    with TemporaryDirectory() as folder:
        process = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if process.returncode != 0:
        sys.exit(f"{shlex.join(command)} failed:\n{process.stderr}")
    return process.stdout


def picture(command: list[str], output: str) -> str:
    """An SVG of a terminal that shows a command line and its output.

    Fonts are the viewer's: rich's own SVG would load one from the web.
    """
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$", "bold green"), f" {shlex.join(command)}\n"))
    console.print(Text.from_ansi(output.rstrip()), end="\n\n")  # room for the last descenders
    svg = console.export_svg(title="vqzoo", unique_id="terminal")
    return _WEB_FONT.sub("", svg)


def main(arguments: list[str]) -> None:
    """Run the command and write its picture."""
    if len(arguments) < 2:
        sys.exit("usage: python -m tools.terminal_picture FILE.svg COMMAND ...")
    target, *command = arguments
    write_text(Path(target), picture(command, output_of(command)))


if __name__ == "__main__":
    main(sys.argv[1:])
