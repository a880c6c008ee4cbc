"""`vqzoo push`, `vqzoo pull` and `vqzoo search`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.options import OnlyJson
from vqzoo.cli.terminal import command, printable, stdout


@command
def push(
    artifact: Annotated[
        Path, typer.Argument(metavar="DIR", help="An artifact's folder.", show_default=False)
    ],
    repo: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Made if it is not there.", show_default=False)
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if it is not there.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead.")
    ] = False,
) -> None:
    """Publish an artifact on the Hub, with its card.

    What the repository has already is not uploaded again; a push that breaks off leaves the
    repository as it was, and the same command goes on. Tokens, mirrors and the cache are those of
    every tool of the Hub: `hf auth login`, HF_TOKEN, HF_ENDPOINT, HF_HOME.
    """
    from vqzoo.hub.repository import push as push_artifact

    pushed = push_artifact(artifact, repo, private=private, revision=revision, create_pr=create_pr)
    print(printable(pushed.url))


@command
def pull(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME[@REVISION]", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the artifact to this folder. [dim]default: the Hub's cache[/]"),
    ] = None,
) -> None:
    """Fetch an artifact from the Hub, verify it, and print where it lies."""
    from vqzoo.hub.repository import pull as pull_artifact

    print(pull_artifact(repo, out=out).artifact.folder)


@command
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILTER]",
            help="Words in a repository's name, its model, method or tags.",
            show_default=False,
        ),
    ] = None,
    json_: OnlyJson = False,
) -> None:
    """List the artifacts on the Hub, as their cards describe them."""
    import json
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from vqzoo.cli.terminal import stderr
    from vqzoo.hub.search import search as search_hub
    from vqzoo.report.formatting import megabytes

    found = search_hub(" ".join(words or []))
    if json_:
        print(json.dumps([asdict(listed) for listed in found], indent=2))
        return
    if not found:
        stderr().print("No artifact matches.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("repository", overflow="fold")
    for title in ("model", "method"):
        table.add_column(title)
    for title in ("size", "ratio", "top-1"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("measured on")
    for listed in found:
        table.add_row(
            escape(printable(listed.repo)) + (" [dim]private[/]" if listed.private else ""),
            escape(printable(listed.model or "?")),
            escape(printable(listed.method or "?")),
            "?" if listed.bytes is None else megabytes(listed.bytes),
            "?" if listed.ratio is None else f"{listed.ratio:.1f}x",
            "not measured" if listed.top1 is None else f"{listed.top1:.2f}%",
            escape(printable(listed.data or "")),
        )
    stdout().print(table)
