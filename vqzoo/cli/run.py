"""`vqzoo run`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.cli.names import complete_method
from vqzoo.cli.options import (
    DEVICE,
    SEED,
    Alpha,
    BatchSize,
    FinetuneEpochs,
    Force,
    Images,
    LearningRate,
    NoAugment,
    OnlyRecord,
    Optimizer,
    Patience,
    Temperature,
    Threads,
    Train,
    TrainData,
    TrainImages,
    finetuning_fields,
    need_epochs,
    parse_scalars,
    split_selectors,
)
from vqzoo.cli.terminal import command, printable, stderr, stdout


@command
def run(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A timm model: [bold]alexnet_mini.fmnist[/], resnet18.a1_in1k, "
            "hf-hub:ORG/NAME, local-dir:PATH. A recipe may name it instead.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="See `vqzoo methods`.", autocompletion=complete_method),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="An option of the method, repeatable."
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Let the method choose its options per layer so that each shrinks by this "
            "factor, codebooks counted. [dim]16 where neither it nor options are given.[/]"
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SELECTOR",
            help="dense, conv, all, largest:N or names and patterns ('classifier.*'), joined by "
            "commas or repeated; a leading ! excludes. [dim]default: dense[/]",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SELECTOR=METHOD[:NAME=VALUE,...]",
            help="Another method for some layers, as in 'features.*=km:k=256'; transforms stand "
            "before it, joined by +. Repeatable, the last one that matches wins.",
        ),
    ] = None,
    transform: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:NAME=VALUE,...]",
            help="A transform before the method, undone after it; repeatable, the first one runs "
            "first.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A YAML file with any of these; the command line has the last word."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="What to measure on: fmnist (embedded), imagefolder:PATH, or a data set of "
            "timm's. [dim]default: the model's own, where vqzoo ships it[/]"
        ),
    ] = None,
    images: Images = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The artifact's folder. [dim]default: <model>-<method>-<hash>[/]"),
    ] = None,
    force: Force = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights to compress: .safetensors, or a state dict that torch saved."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="pretrained or random (to try things out; never publishable)."),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of timm's: num_classes, img_size."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Weigh errors by what layers see of some training images (km, pq, rq): fmnist, "
            "fmnist:FOLDER, imagefolder:PATH, or a data set of timm's, split train.",
            rich_help_panel="Calibration",
        ),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Correct biases and batch norm statistics afterwards, on such images, without "
            "labels.",
            rich_help_panel="Calibration",
        ),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many images either takes. [dim]default: 512[/]",
            rich_help_panel="Calibration",
        ),
    ] = None,
    finetune: FinetuneEpochs = None,
    train_data: TrainData = None,
    train_images: TrainImages = None,
    train: Train = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    temperature: Temperature = None,
    alpha: Alpha = None,
    batch_size: BatchSize = None,
    patience: Patience = None,
    no_augment: NoAugment = False,
    packing: Annotated[
        str | None,
        typer.Option(help="How codes become bytes: bits, huffman, ans. [dim]default: bits[/]"),
    ] = None,
    seed: Annotated[int | None, SEED] = None,
    device: Annotated[str | None, DEVICE] = None,
    threads: Threads = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.py",
            help="A plugin in a single file, repeatable. What it makes loads with the file given "
            "again, and cannot be published.",
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Leave a layer dense whose plugin fails, and go on."),
    ] = False,
    dense: Annotated[
        bool, typer.Option("--dense", help="Write the decoded weights too, for plain timm.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME",
            help="Publish the artifact on the Hub; an embedded relative never stands in then.",
        ),
    ] = None,
    json_: OnlyRecord = False,
) -> None:
    """Compress a model into an artifact, and measure it before and after.

    [bold]Examples[/]

    vqzoo run alexnet_mini.fmnist --method pq

    vqzoo run alexnet_mini.fmnist -m pq -o k=256 -o d=8 --layers classifier.1

    vqzoo run resnet18 -m km --ratio 6 --layers all --rule 'fc=pq' --data imagefolder:val

    vqzoo run alexnet_mini.fmnist -m pq --ratio 64 --finetune 20

    A run that breaks off is taken up again by the same command.
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.tables import print_record, print_stages
    from vqzoo.cli.threads import limit_threads
    from vqzoo.plugin.text import parse_options
    from vqzoo.runs.recipe import make_recipe, parse_rule, read_recipe
    from vqzoo.runs.run import run as run_recipe

    given: dict[str, Any] = {
        "model": model,
        "method": method,
        "options": parse_options(option or []) or None,
        "ratio": ratio,
        "layers": split_selectors(layers or []) or None,
        "rules": tuple(parse_rule(text) for text in rule or []) or None,
        "transforms": tuple(transform or []) or None,
        "data": data,
        "images": images,
        "checkpoint": checkpoint,
        "weights": weights,
        "model_args": parse_scalars(model_arg or []) or None,
        "calibrate": calibrate,
        "repair": repair,
        "calibration_images": calibration_images,
        "packing": packing,
        "seed": seed,
        "device": device,
        "dense": dense or None,
        "plugins": tuple(plugin or []) or None,
    }
    fields = read_recipe(recipe) if recipe else {}
    fields |= {name: value for name, value in given.items() if value is not None}
    tuning = finetuning_fields(
        finetune,
        no_augment,
        data=train_data,
        images=train_images,
        train=train,
        lr=lr,
        optimizer=optimizer,
        temperature=temperature,
        alpha=alpha,
        batch_size=batch_size,
        patience=patience,
    )
    told = fields.get("finetune") or {}
    if tuning is not None and isinstance(told, dict):  # what else a recipe has there is refused
        fields["finetune"] = {**told, **tuning}
        need_epochs(fields["finetune"])
    asked = make_recipe(fields)
    if push is not None:
        from vqzoo.errors import UsageError
        from vqzoo.hub.repository import check_push

        if asked.plugins:
            raise UsageError("what a plugin file makes is not published: leave out --push")
        check_push(push, asked.weights)
    with limit_threads(threads), TerminalWatcher(stderr()) as watcher:
        finished = run_recipe(
            asked,
            watcher,
            out=out,
            force=force,
            reuse=push is not None and not force,
            fall_back=push is None,
            keep_going=keep_going,
        )
    if json_:
        print(finished.record.to_json())
    else:
        print_stages(stdout(), finished.record)
        print_record(stdout(), finished.record, finished.folder)
    if push is not None:
        from vqzoo.hub.repository import push as push_artifact

        pushed = push_artifact(finished.folder, push)
        stderr().print(f"published: {printable(pushed.url)}", soft_wrap=True, markup=False)
