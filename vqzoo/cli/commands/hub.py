"""`vqzoo push`, `vqzoo pull` and `vqzoo search`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.options import OnlyJson
from vqzoo.cli.terminal import command, printable, resumable_command, stdout


@resumable_command
def push(
    artifact: Annotated[
        Path, typer.Argument(metavar="DIR", help="An artifact's folder.", show_default=False)
    ],
    repo: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME",
            help="The repository; created if it does not exist.",
            show_default=False,
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="A branch; created if it does not exist.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead.")
    ] = False,
) -> None:
    """Publish an artifact on the Hub, with its card.

    Files that the repository already has are not uploaded again. An interrupted push leaves the
    repository as it was; run the same command again to resume. Tokens, mirrors and the cache are
    configured as for every Hub tool: `hf auth login`, HF_TOKEN, HF_ENDPOINT, HF_HOME.
    """
    from vqzoo.hub.repository import push as push_artifact

    pushed = push_artifact(artifact, repo, private=private, revision=revision, create_pr=create_pr)
    print(printable(pushed.url))


@command
def pull(
    repo: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME[@REVISION]",
            help="A repository on the Hub; a revision is a branch, tag or commit.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Copy the artifact to this folder. [dim]default: leave it in the Hub's cache[/]"
        ),
    ] = None,
) -> None:
    """Download an artifact from the Hub, verify it, and print its folder."""
    from vqzoo.hub.repository import pull as pull_artifact

    print(pull_artifact(repo, out=out).artifact.folder)


@command
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="Words in the repository's name, model, method or tags.",
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

    listings = search_hub(" ".join(words or []))
    if json_:
        print(json.dumps([asdict(listing) for listing in listings], indent=2))
        return
    if not listings:
        stderr().print("No artifact matches.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("repository", overflow="fold")
    for title in ("model", "method"):
        table.add_column(title)
    for title in ("size", "ratio", "top-1"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("measured on")
    for listing in listings:
        table.add_row(
            escape(printable(listing.repo)) + (" [dim]private[/]" if listing.private else ""),
            escape(printable(listing.model or "?")),
            escape(printable(listing.method or "?")),
            "?" if listing.bytes is None else megabytes(listing.bytes),
            "?" if listing.ratio is None else f"{listing.ratio:.1f}x",
            "not measured" if listing.top1 is None else f"{listing.top1:.2f}%",
            escape(printable(listing.data or "")),
        )
    stdout().print(table)
