"""`vqzoo report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.options import ArtifactPlugins, Threads
from vqzoo.cli.terminal import command, print_text, printable, stderr, stdout
from vqzoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@command
def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...",
            help="Artifacts, or folders of them: what `vqzoo run`, `compare`, `zoo build` or "
            "`sweep` wrote; or URLs of such folders: s3://bucket/sweep.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. [dim]default: report.html[/]")
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Show the page to browsers on this machine until Ctrl-C, anew each time.",
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="For --serve. [dim]default: a free port[/]")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=200,
            help="Also show up to N images of each artifact whose answer changed. Both networks "
            "run to find them.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Where --examples looks: imagefolder:PATH, or a timm data set; the page then "
            "holds such images. [dim]default: fmnist, of networks measured on it[/]"
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many images --examples looks at, evenly spaced. [dim]default: 1000[/]"
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="For --examples: weights of the dense network, if they are from a file."),
    ] = None,
    plugin: ArtifactPlugins = None,
    threads: Threads = None,
) -> None:
    """Write one HTML file that shows artifacts: size against loss, layers, changed answers.

    The file is complete, needs no network, and can be mailed. Its chart, tables and filters show
    what report.json says of each artifact. `vqzoo compare` and `vqzoo zoo build` write one, too.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.numerics.threads import use_threads
    from vqzoo.page.examples import ExampleOptions
    from vqzoo.page.local_copies import local_folders
    from vqzoo.page.write import PAGE_FILE, check_page_target, make_page, save_page
    from vqzoo.plugin.files import plugin_files
    from vqzoo.report.formatting import count_of

    _check_options(serve, port, examples, data, images, checkpoint)
    options = None
    if examples is not None:
        options = ExampleOptions(examples, data, images or 1000, checkpoint)
    target = out if serve else out or Path(PAGE_FILE)
    if target is not None:
        check_page_target(target)
    with (
        plugin_files(plugin or []),
        use_threads(threads),
        local_folders(folders, weights=examples is not None) as local,
        TerminalWatcher(stderr()) as watcher,
    ):
        collection, text = make_page(local, examples=options, watcher=watcher)
    for problem in collection.problems:
        print_text(stderr(), printable(f"{problem.name} is left out: {problem.reason}"))
    if target is not None:
        save_page(text, target)
        print_text(stdout(), f"{target}: {count_of(len(collection.runs), 'artifact')}")
    if serve:  # examples take long to make, so those pages stay as they are
        _serve((lambda: text) if options else (lambda: _page_of(folders)), port)


def _page_of(folders: list[str]) -> str:
    from vqzoo.page.local_copies import local_folders
    from vqzoo.page.write import make_page

    with local_folders(folders) as local:
        return make_page(local)[1]


def _check_options(
    serve: bool, port: int | None, examples: int | None, *of_examples: object
) -> None:
    if port is not None and not serve:
        raise UsageError("--port goes with --serve")
    if examples is None and any(value is not None for value in of_examples):
        raise UsageError("--data, --images and --checkpoint go with --examples N")


def _serve(make: "Callable[[], str]", port: int | None) -> None:
    from vqzoo.page.serve import page_server

    with page_server(make, port or 0) as server:
        print_text(stdout(), f"http://127.0.0.1:{server.server_port}/ shows the page; Ctrl-C ends")
        server.serve_forever()
