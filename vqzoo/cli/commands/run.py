"""`vqzoo run`."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.cli.declared import takes
from vqzoo.cli.options import Force, LayerExecutor, OnlyRecord, Threads, need_epochs, need_folder
from vqzoo.cli.terminal import printable, resumable_command, stderr, stdout
from vqzoo.errors import UsageError
from vqzoo.runs.recipe import Recipe, make_recipe, read_recipe


@resumable_command
@takes(Recipe)
def run(
    fields: dict[str, Any],
    model: Annotated[
        str | None,
        typer.Argument(
            help="A timm model: [bold]alexnet_mini.fmnist[/], resnet18.a1_in1k, "
            "hf-hub:ORG/NAME, local-dir:PATH. A recipe may name it instead.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A YAML file that sets any of these; the command line takes precedence."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The artifact's folder. [dim]default: <model>-<method>-<hash>[/]"),
    ] = None,
    force: Force = False,
    executor: LayerExecutor = None,
    threads: Threads = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="If a plugin fails on a layer, leave it dense.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME",
            help="Publish the artifact on the Hub. If the model's weights are missing, the run "
            "fails: no embedded relative stands in.",
        ),
    ] = None,
    json_: OnlyRecord = False,
) -> None:
    """Compress a model into an artifact, and measure it before and after.

    [bold]Examples[/]

    vqzoo run alexnet_mini.fmnist --size 500kB

    vqzoo run alexnet_mini.fmnist --max-drop 0.5

    vqzoo run alexnet_mini.fmnist --method pq

    vqzoo run alexnet_mini.fmnist -m pq -o k=256 -o d=8 --layers classifier.1

    vqzoo run resnet18 -m km --ratio 6 --layers all --rule 'fc=pq' --data imagefolder:val

    vqzoo run alexnet_mini.fmnist -m pq --ratio 64 --finetune 20

    vqzoo run vit_large_patch16_224 -m pq --executor local:4

    If a run is interrupted, run the same command again to resume.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.tables import print_record, print_stages, warn_of_low_coverage
    from vqzoo.numerics.threads import use_threads
    from vqzoo.runs.run import run as run_recipe

    need_folder(out)
    if model is not None:
        fields["model"] = model
    fields = _override(read_recipe(recipe) if recipe else {}, fields)
    if "model" not in fields:
        raise UsageError("give a model, as in `vqzoo run alexnet_mini.fmnist --method pq`")
    request = make_recipe(fields)
    if push is not None:
        from vqzoo.hub.repository import check_push

        if request.plugins:
            raise UsageError("what a plugin file makes is not published: leave out --push")
        check_push(push, request.weights)
    with (
        use_threads(threads),
        TerminalWatcher(stderr()) as watcher,
        _started(executor, request) as started,
    ):
        finished = run_recipe(
            request,
            watcher,
            out=out,
            force=force,
            reuse=push is not None and not force,
            fall_back=push is None,
            keep_going=keep_going,
            executor=started,
        )
    warn_of_low_coverage(finished.record)
    url = None if push is None else _published(finished.folder, push)
    if json_:
        print(finished.record.to_json())
    else:
        print_stages(stdout(), finished.record)
        print_record(stdout(), finished.record, finished.folder)
    if url is not None:
        _say(f"published: {url}")


def _published(folder: Path, repo: str) -> str:
    """Publish an artifact that is complete: where to view it.

    Results are printed behind the upload, so that whoever reads them finds it on the Hub. The same
    command resumes an upload that was interrupted.
    """
    from vqzoo.hub.repository import push

    _say(f"{folder} is complete; publishing it as {repo}")
    return push(folder, repo).url


def _say(text: str) -> None:
    stderr().print(printable(text), soft_wrap=True, markup=False)


@contextmanager
def _started(name: str | None, request: Recipe) -> Iterator[Executor | None]:
    """The executor that compresses the layers; None for this process."""
    if name is None:
        yield None
        return
    from vqzoo.calls.engines import started_executor
    from vqzoo.plugin.execution.engine import CallResources
    from vqzoo.plugin.files import plugin_files
    from vqzoo.plugin.manager import installed_plugins
    from vqzoo.runs.run import check_side_by_side

    check_side_by_side(request)
    with plugin_files(request.plugins):
        plugins = installed_plugins()
    with started_executor(name, CallResources(), plugins) as executor:
        yield executor


def _override(recipe: dict[str, Any], command_line: dict[str, Any]) -> dict[str, Any]:
    """A recipe file's fields, and in their place those of the command line.

    Fine-tuning is the one field with fields of its own: they are replaced one by one.
    """
    fields = recipe | command_line
    if "finetune" in command_line:
        before = recipe.get("finetune") or {}
        if not isinstance(before, dict):
            return fields | {"finetune": before}  # `make_recipe` says what is wrong with it
        fields["finetune"] = before | command_line["finetune"]
        need_epochs(fields["finetune"])
    return fields
