"""README.md of a distilled network."""

from collections.abc import Mapping
from typing import Any

import timm

from vqzoo.report.formatting import count_of, megabytes, points
from vqzoo.report.markdown import code, plain, table
from vqzoo.runs.distill.record import DistillationRecord, NetworkRecord

_METADATA = """---
library_name: timm
pipeline_tag: image-classification
tags: [timm, vqzoo, knowledge-distillation]
---
"""


def distillation_card(record: DistillationRecord, config: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        record: what the student learned, and from whom.
        config: the student's timm config.
    """
    sections = [
        f"# {plain(config['architecture'])}, taught by {plain(record.teacher.model)}",
        _summary(record),
        _figures(record),
        _usage(str(config["architecture"])),
        f"## How it was made\n\n```sh\n{record.command}\n```",
    ]
    return f"{_METADATA}\n" + "\n\n".join(sections) + "\n"


def _summary(record: DistillationRecord) -> str:
    start = "random" if record.student.weights == "random" else "trained"
    lessons = f"the answers of {code(record.teacher.model)}"
    if record.label_weight == 1:
        lessons = "labels alone"
    elif record.label_weight > 0:
        lessons += f" and, at weight {record.label_weight:g}, from labels"
    return (
        f"The image model {code(record.student.model)}. From {start} weights, it learned from "
        f"{lessons}. The training data: {plain(record.data)}. It has the values of epoch "
        f"{record.best_epoch} of {len(record.history) - 1}."
    )


def _figures(record: DistillationRecord) -> str:
    titles = ["", "model", "parameters", "fp32 file"]
    rows = [_row("teacher", record.teacher), _row("student", record.student)]
    accuracy = record.accuracy
    if accuracy is None:
        return table(titles, rows, right=(2, 3))
    titles.append(f"top-1 on {plain(accuracy.data)}, {count_of(accuracy.images, 'image')}")
    for row, scores in zip(rows, (accuracy.teacher, accuracy.student), strict=True):
        row.append(f"{scores.top1:.2f}%")
    change = points(accuracy.difference.top1, accuracy.difference.ci95)
    return table(titles, rows, right=(2, 3, 4)) + (
        f"\n\nThe student minus the teacher: {change} points (± is the 95% confidence interval of "
        "the paired difference)."
    )


def _row(role: str, network: NetworkRecord) -> list[str]:
    return [role, code(network.model), f"{network.parameters:,}", megabytes(network.bytes)]


def _usage(architecture: str) -> str:
    with_timm_alone = timm.model_entrypoint(architecture).__module__.startswith("timm.")
    register = "" if with_timm_alone else "import vqzoo\n\nvqzoo.register_models()\n"
    return f"""## Use

With this folder as `student`:

```python
import timm
{register}
model = timm.create_model("local-dir:student", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

`vqzoo run local-dir:student` compresses it."""
