"""Options that several commands share and that no settings declare."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.errors import UsageError

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. [dim]default: all[/]")]
Force = Annotated[bool, typer.Option("--force", help="Replace a finished folder.")]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME[:ADDRESS]",
        help="Run in other processes: local:N for N on this machine; `vqzoo plugins` lists further "
        "executors. [dim]default: this process[/]",
    ),
]
LayerExecutor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME[:ADDRESS]",
        help="Compress layers side by side in other processes: local:N for N on this machine; "
        "`vqzoo plugins` lists further executors. [dim]default: one after another, in this "
        "process[/]",
    ),
]
ArtifactPlugins = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.py", help="A plugin file that the artifact was made with; repeatable."
    ),
]
OnlyRecord = Annotated[
    bool, typer.Option("--json", help="Print the record, and nothing else, on stdout.")
]
OnlyJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


def need_epochs(finetuning: Mapping[str, Any]) -> None:
    """Refuse settings of a fine-tuning that was not requested.

    Raises:
        UsageError: names the settings.
    """
    if "epochs" not in finetuning:
        names = ", ".join(finetuning)
        raise UsageError(f"{names}: only fine-tuning takes these; give --finetune EPOCHS")


def need_folder(out: Path | None) -> None:
    """Refuse a URL where a folder of this machine is meant, which would be made as `s3:/...`.

    Raises:
        UsageError: says which command writes to URLs.
    """
    if out is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:+/", out.as_posix()):
        raise UsageError(
            f"--out {out}: this command writes into folders of this machine; `vqzoo sweep` and its "
            "grid write to URLs"
        )
