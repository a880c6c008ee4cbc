"""The model card, README.md: what an artifact's headers and the record of its run say."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from vqzoo.artifact.files import new_file, write_text
from vqzoo.artifact.reader import Artifact, open_artifact
from vqzoo.artifact.schema import BUDGET_PLOT_FILE, CARD_FILE, PLOT_FILE
from vqzoo.plugin.manager import Plugins
from vqzoo.report.budget_plot import draw_budget
from vqzoo.report.card_figures import accuracy_section, layers_section, size_section
from vqzoo.report.card_metadata import card_metadata, method_names, model_name, pretrained_cfg
from vqzoo.report.card_origin import making_section, origin_section
from vqzoo.report.card_plot import draw_bytes
from vqzoo.report.costs.file import read_costs
from vqzoo.report.costs.record import BenchRecord
from vqzoo.report.costs.section import costs_section
from vqzoo.report.formatting import count_of, megabytes
from vqzoo.report.markdown import code, plain
from vqzoo.report.record import Record
from vqzoo.report.record_file import read_record

Draw = Callable[[Path | IO[bytes]], None]  # draws a plot into a file
# Stands for the repository's name until the card is pushed.
REPO_PLACEHOLDER = "ORG/NAME"


def write_card(folder: Path, plugins: Plugins) -> None:
    """Write README.md and its plots beside an artifact and its report.json."""
    artifact = open_artifact(folder)
    record = read_record(artifact)
    write_text(folder / CARD_FILE, render_card(artifact, record, plugins, read_costs(artifact)))
    for name, draw in card_plots(artifact, record).items():
        with new_file(folder / name) as temporary:
            draw(temporary)


def card_plots(
    artifact: Artifact, record: Record | None
) -> dict[str, Callable[[Path | IO[bytes]], None]]:
    """The plots that the card shows: file name -> what draws it into a file."""
    plots: dict[str, Callable[[Path | IO[bytes]], None]] = {
        PLOT_FILE: partial(draw_bytes, artifact)
    }
    if record is not None and record.budget is not None:
        plots[BUDGET_PLOT_FILE] = partial(draw_budget, record)
    return plots


def render_card(
    artifact: Artifact,
    record: Record | None,
    plugins: Plugins,
    bench: BenchRecord | None = None,
) -> str:
    """The text of README.md.

    Args:
        artifact: an artifact whose headers have been checked.
        record: the record of the run that made it. Without one the card leaves out what only a run
            knows (accuracy, errors, the command), or says that it is not known.
        plugins: the plugins in which the methods' sources are looked up.
        bench: the benchmark of the artifact, if one was kept.
    """
    model = model_name(artifact, record)
    sections = [
        f"# {plain(model)}, compressed by {plain(' and '.join(method_names(artifact)))}",
        _summary(artifact, record, model),
        _usage(artifact),
        size_section(artifact, record),
        accuracy_section(record),
        layers_section(artifact, record),
        making_section(artifact, record),
        costs_section(artifact, bench),
        origin_section(artifact, record, plugins),
    ]
    metadata = card_metadata(artifact, record, model).to_yaml(line_break="\n")
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n"


def _summary(artifact: Artifact, record: Record | None, model: str) -> str:
    layers = count_of(len(artifact.metadata.layers), "layer")
    methods = ", ".join(code(name) for name in method_names(artifact))
    size = f"The weights file takes {megabytes(artifact.block.bytes)}"
    if record is not None:
        size += f" instead of {megabytes(record.bytes.dense)} ({record.ratio.file:.1f}x smaller)"
    return (
        f"The image model {code(model)} with {layers} compressed by {methods} and everything else "
        f"unchanged. {size}. It loads with vqzoo and runs as a "
        "[timm](https://github.com/huggingface/pytorch-image-models) model."
    )


def _usage(artifact: Artifact) -> str:
    size = pretrained_cfg(artifact).get("input_size")
    mode = "L" if isinstance(size, list) and size[:1] == [1] else "RGB"
    return f"""## Use

`pip install vqzoo`, then

```python
import timm
import torch
import vqzoo
from PIL import Image

model = vqzoo.load("{REPO_PLACEHOLDER}")  # a timm module in eval mode with decoded weights
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("image.jpg").convert("{mode}")
with torch.no_grad():
    logits = model(transform(image).unsqueeze(0))
```"""
