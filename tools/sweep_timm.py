"""Compress one network of each family in timm: `python -m tools.sweep_timm`.

A family is a module of timm's. Its smallest network is built with random weights, compressed with
`rtn`, saved, and loaded in both modes; the logits of what was compressed and of what was loaded are
compared on one image. The result is a Markdown table on stdout, a row as each network ends. A
network that fails has its reason in the table, the sweep goes on, and the exit code is 1.

`timm_families.json` names the networks. `--choose` writes it anew for the installed timm: it builds
every model that timm has on the meta device, which takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from timm.models import list_modules
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.errors import UsageError, cause

FAMILIES = Path(__file__).with_name("timm_families.json")
MOST_PARAMETERS = 32  # millions: the smallest networks of 86 families in timm 1.0.31

_TOLERANCE = 1e-4  # of the largest logit, as `vqzoo.load` promises for networks that run from codes
_COLUMNS = (
    "family", "model", "million weights", "layers", "share", "decoded", "codes", "proven",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family's smallest network."""

    name: str
    model: str
    parameters: int


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes:
        layers: how many layers were compressed.
        share: of all parameters, those in compressed layers.
        decoded: the largest difference of the logits of the network loaded with decoded weights
            from those of the network that was saved, relative to the largest logit.
        codes: the same for the network that runs from its codes.
        proven: whether the artifact records that saving compared the network that it rebuilds.
    """

    layers: int
    share: float
    decoded: float
    codes: float
    proven: bool

    @property
    def problem(self) -> str | None:
        """Why the networks count as different; None if they are equal."""
        for mode, difference in (("decoded", self.decoded), ("codes", self.codes)):
            if not difference <= _TOLERANCE:
                return f"mode {mode}: logits differ by {difference:.1e} of the largest"
        return None if self.proven else "the artifact has no proof"


def families(most_parameters: float | None = None) -> list[Family]:
    """The families of `timm_families.json` with at most so many parameters, by name.

    Those that the installed timm lacks are left out.
    """
    listed = json.loads(FAMILIES.read_text())
    return [
        Family(name, entry["model"], entry["parameters"])
        for name, entry in listed.items()
        if timm.is_model(entry["model"])
        and (most_parameters is None or entry["parameters"] <= most_parameters)
    ]


def sweep(model: str) -> Outcome:
    """Take a network of timm's through compressing, saving, and loading in both modes.

    Raises:
        ValueError: the logits of the network say nothing: they are not finite, or all the same.
        VqzooError: from compressing, saving or loading.
    """
    torch.manual_seed(0)
    network = timm.create_model(model).eval().requires_grad_(False)
    _enliven(network)
    image = torch.randn(1, *network.pretrained_cfg["input_size"])
    small = vqzoo.compress(network, "rtn", layers="all", format="int8")
    expected = _logits(small, image)
    if not torch.isfinite(expected).all() or expected.min() == expected.max():
        raise ValueError("its logits are not finite, or all the same")
    with TemporaryDirectory(prefix="sweep-timm-") as temporary:
        folder = Path(temporary) / model
        small.save(folder)
        proof = json.loads((folder / CONFIG_FILE).read_text())["vqzoo"]["proof"]
        differences = [
            _difference(_logits(vqzoo.load(folder, mode=mode), image), expected)
            for mode in ("decoded", "codes")
        ]
    taken = sum(layer.layer.numel for layer in small.layers)
    return Outcome(
        len(small.layers),
        taken / sum(parameter.numel() for parameter in network.parameters()),
        *differences,
        proof is not None,
    )


def _enliven(network: nn.Module) -> None:
    """Move every parameter off constants such as the zeros that timm starts residual branches with:
    through them, no layer would show in the logits."""
    for parameter in network.parameters():
        if parameter.min() == parameter.max() and parameter.is_floating_point():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def _logits(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        logits = network(image)
    if not isinstance(logits, Tensor):
        raise ValueError(f"it returns a {type(logits).__name__}, not logits")
    return logits


def _difference(logits: Tensor, expected: Tensor) -> float:
    return float((logits - expected).abs().max() / expected.abs().max())


def choose() -> Iterator[Family]:
    """The smallest network of each of timm's families."""
    for name in list_modules():
        sizes: dict[str, int] = {}
        for model in timm.list_models(module=name):
            with torch.device("meta"):
                network = timm.create_model(model)
            sizes[model] = sum(parameter.numel() for parameter in network.parameters())
        if sizes:
            smallest = min(sizes, key=lambda model: (sizes[model], model))
            yield Family(name, smallest, sizes[smallest])


def write_choice(chosen: Sequence[Family]) -> None:
    """Write `timm_families.json`."""
    entries = {f.name: {"model": f.model, "parameters": f.parameters} for f in chosen}
    FAMILIES.write_text(json.dumps(entries, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module="timm")
    console = Console(stderr=True)
    with _progress(console) as progress:
        if options.choose:
            task = progress.add_task("choosing", total=len(list_modules()))
            write_choice([family for family in choose() if progress.advance(task) is None])
            return 0
        try:
            selected = _selected(options.family, options.most * 1e6)
        except UsageError as error:
            console.print(f"Error: {error}", soft_wrap=True)
            return 2
        _print_row(_COLUMNS)
        _print_row(["---"] * len(_COLUMNS))
        task = progress.add_task("", total=len(selected))
        failed = 0
        for family in selected:
            progress.update(task, description=family.model)
            cells, passed = _row(family)
            _print_row(cells)
            failed += not passed
            progress.advance(task)
    console.print(f"{len(selected) - failed} of {len(selected)} networks passed.")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    summary = "Compress, save and load one network of each family in timm."
    parser = argparse.ArgumentParser(prog="python -m tools.sweep_timm", description=summary)
    parser.add_argument("--family", action="append", help="only this family; may be repeated")
    parser.add_argument(
        "--most", type=float, default=MOST_PARAMETERS, metavar="N",
        help="leave out families whose smallest network has more than N million parameters "
        "(default: %(default)s); does not apply to --family",
    )  # fmt: skip
    parser.add_argument("--choose", action="store_true", help="write timm_families.json anew")
    return parser


def _selected(names: Sequence[str] | None, most_parameters: float) -> list[Family]:
    if names is None:
        return families(most_parameters)
    known = {family.name: family for family in families()}
    for name in names:
        if name not in known:
            raise UsageError(f"no family {name!r}; the families are: {', '.join(known)}")
    return [known[name] for name in names]


def _row(family: Family) -> tuple[list[str], bool]:
    """A row of the table, and whether the network passed."""
    cells = [family.name, family.model, f"{family.parameters / 1e6:.1f}"]
    try:
        outcome = sweep(family.model)
    except Exception as error:  # the sweep reports it and goes on
        return [*cells, f"failed: {cause(error)}"], False
    cells += [str(outcome.layers), f"{100 * outcome.share:.1f}%"]
    cells += [_equality(outcome.decoded), _equality(outcome.codes)]
    cells.append("yes" if outcome.proven else "**no**")
    return cells, outcome.problem is None


def _equality(difference: float) -> str:
    if difference == 0:
        return "equal"
    return f"{difference:.0e}" if difference <= _TOLERANCE else f"**differs by {difference:.1e}**"


def _print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


if __name__ == "__main__":
    sys.exit(main())
