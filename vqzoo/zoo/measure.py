"""Accuracy of an artifact or of a dense model, by itself."""

import os
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError
from vqzoo.plugin.manager import installed_plugins
from vqzoo.zoo.data import open_data
from vqzoo.zoo.evaluate import evaluate
from vqzoo.zoo.load import load, names_repository
from vqzoo.zoo.models import EMBEDDED_DATA, find_model
from vqzoo.zoo.names import SOURCES, register_models
from vqzoo.zoo.prepare import parse_device
from vqzoo.zoo.watcher import Watcher


def measure(
    subject: str,
    watcher: Watcher,
    *,
    data: str | None = None,
    images: int | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate.

    Args:
        subject: an artifact's folder, its repository on the Hub ("org/name"), or a timm model
            ("hf-hub:org/name" is one).
        data: what on; by default the model's own data where vqzoo ships it.

    Returns:
        model, data, images, top1 and top5 (percent; None where there are under five classes).

    Raises:
        UsageError: the subject does not exist, or the data has no labels for it.
    """
    where = parse_device(device)
    register_models(installed_plugins())
    folder = Path(subject).is_dir()
    if folder or (names_repository(subject) and not subject.startswith(SOURCES)):
        with watcher.phase(f"loading {subject}"):
            model = load(subject)
        cfg: dict[str, Any] = getattr(model, "pretrained_cfg", {})
        name = f"{cfg['architecture']}.{cfg.get('tag')}"
    elif ":" not in subject and (os.sep in subject or subject.startswith("~")):
        raise UsageError(f"there is no folder {subject}")
    else:
        opened = find_model(subject, watcher, checkpoint=checkpoint)
        model, name = opened.module, opened.name
    spec = data or EMBEDDED_DATA.get(name)
    if spec is None:
        raise UsageError(f"{subject} has no data of its own here: give --data imagefolder:PATH")
    opened_data = open_data(spec, model, images=images)
    if not opened_data.labelled:
        raise UsageError(f"{spec} has no labels that fit {subject}: {opened_data.unlabelled}")
    with watcher.images(f"evaluating {subject}") as steps:
        result = evaluate(model, opened_data, device=where, progress=steps)
    return {
        "model": subject,
        "data": result.data,
        "images": result.images,
        "top1": result.top1,
        "top5": result.top5,
    }
