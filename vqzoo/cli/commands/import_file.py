"""`vqzoo import`."""

from pathlib import Path
from typing import Annotated

import typer

from vqzoo.cli.options import ArtifactPlugins, Force
from vqzoo.cli.terminal import command, print_text, printable, stderr, stdout


@command
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="The file, or a package that is a folder (.mlpackage).", show_default=False
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="KIND",
            help="The kind of file: [bold]kill-the-bits[/], [bold]permute-quantize-finetune[/], "
            "[bold]deep-compression[/], [bold]torch-quantized[/], [bold]torchao[/], "
            "[bold]quanto[/], [bold]onnx[/], [bold]coreml[/]; `vqzoo plugins` lists those of other "
            "plugins.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The timm model that has these weights, with the tag that it was trained under, "
            "which chooses the preprocessing: resnet18.tv_in1k for torchvision's resnet18.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The artifact's folder.", show_default=False)],
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An argument for timm.create_model, as num_classes=10; repeatable.",
        ),
    ] = None,
    packing: Annotated[
        str | None,
        typer.Option(
            help="How codes become bytes: bits, huffman, ans, context. "
            "[dim]default: the method's own, mostly bits[/]"
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            "--license",
            help="The licence of the weights, as cc-by-nc-4.0. [dim]default: what the file says[/]",
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            help="Where the file came from: an address, or a few words. "
            "[dim]default: what the file says[/]"
        ),
    ] = None,
    plugin: ArtifactPlugins = None,
    force: Force = False,
) -> None:
    """Turn a network that another library published as codes into an artifact, without loss.

    The weights that the artifact decodes to are those that the other library computes with, bit for
    bit. It is measured, fine-tuned and published like any other artifact.

    [bold]Examples[/]

    vqzoo import resnet18_large_blocks.pth --from kill-the-bits --model resnet18.tv_in1k --out small
    --licence cc-by-nc-4.0 --packing ans

    vqzoo eval small --data imagefolder:val

    vqzoo finetune small --teacher resnet18.a1_in1k --data imagefolder:train --epochs 3
    """
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.network.import_file import import_file
    from vqzoo.plugin.text import parse_json_pairs
    from vqzoo.report.formatting import count_of, megabytes

    with TerminalWatcher(stderr()) as watcher:
        made = import_file(
            file,
            kind,
            model,
            out,
            model_args=parse_json_pairs(model_arg or []),
            packing=packing,
            licence=licence,
            origin=origin,
            plugins=plugin or (),
            force=force,
            watcher=watcher,
        )
    print_text(
        stdout(),
        f"{printable(str(made.folder))}: {count_of(made.layers, 'layer')} as codes, "
        f"{megabytes(made.file_bytes)}; {printable(file.name)} has {megabytes(made.source_bytes)}",
    )
    if made.licence is None:
        print_text(stderr(), "The file does not say what its licence is: --licence records it.")
