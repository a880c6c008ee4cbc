"""`vqzoo.finetune`."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from vqzoo.compression.decode import decode
from vqzoo.compression.distortion import MatrixError, matrix_error
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.view import weight_key
from vqzoo.data.batches import Data
from vqzoo.data.training_data import TrainingData, given_batches
from vqzoo.errors import UsageError
from vqzoo.finetuning.images import open_images
from vqzoo.finetuning.loop import tune
from vqzoo.finetuning.settings import Finetuning
from vqzoo.network.compressed_model import CompressedModel
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import SilentWatcher, Watcher


def finetune(
    small: CompressedModel,
    data: str | Iterable[Any],
    *,
    teacher: nn.Module,
    validation: Iterable[Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: Watcher | None = None,
    **settings: Any,
) -> CompressedModel:
    """Train what a compressed network stores as floats to answer as the dense one does.

    Codes never change, so neither does the size. The values of the least validation loss are kept,
    those of the start among them; without validation images, those after the last epoch.

    Args:
        small: it is not changed.
        data: batches of images, or pairs of images and labels, preprocessed, such as a
            `torch.utils.data.DataLoader` gives; or, as text, what `vqzoo finetune --data` takes.
        teacher: the network that `small` was made from. Another of the same classes may teach, too;
            a layer whose weight it does not have in the same shape then has NaN for its error.
        validation: batches held out of training; with data as text, some of that is held out.
        seed: order and augmentation of data given as text. The same seed gives the same values on
            one machine with one number of threads.
        device: where to train.
        checkpoint: a file that is written after each epoch; a call that finds it goes on there.
        progress: told of each epoch.
        **settings: `epochs` and the other fields of `Finetuning`.

    Returns:
        The fine-tuned network.

    Raises:
        UsageError: a setting is unknown or out of bounds, or the data's text makes no sense.
        VqzooError: there is nothing to train, or training diverged.

    Example:
        >>> better = vqzoo.finetune(small, loader, teacher=model, epochs=5)  # doctest: +SKIP
    """
    chosen = parse_settings(settings)
    images = _training_data(data, validation, small.module, chosen, seed)
    with plugin_files(small.plugin_files):
        plugins = installed_plugins()
    tuned = tune(
        small.module,
        {layer.layer.name: layer.compressed for layer in small.layers},
        teacher,
        images,
        chosen,
        plugins,
        progress or SilentWatcher(),
        seed=seed,
        device=torch.device(device),
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    layers = [_tuned_layer(one, tuned.codes[one.layer.name], teacher, plugins)
              for one in small.layers]  # fmt: skip
    return CompressedModel(tuned.module, layers, small.skipped, small.plugin_files)


def parse_settings(given: dict[str, Any]) -> Finetuning:
    """Validate settings.

    Raises:
        UsageError: one line that names the setting.
    """
    try:
        return Finetuning(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Finetuning.model_fields)
            raise UsageError(f"fine-tuning has no setting {name!r}; it has: {known}") from None
        raise UsageError(f"{name}={problem['input']!r}: {problem['msg'].lower()}") from None


def _training_data(
    data: str | Iterable[Any],
    validation: Iterable[Any] | None,
    model: nn.Module,
    settings: Finetuning,
    seed: int,
) -> TrainingData:
    if isinstance(data, str):
        if validation is not None:
            raise UsageError(f"{data}: some of it is held out already; give no validation besides")
        return open_images(data, model, settings, seed)
    if validation is None:
        return given_batches(data)
    held_out = given_batches(validation)
    again = partial(held_out.batches, torch.Generator())
    return given_batches(data, Data(held_out.name, None, None, "", again))


def _tuned_layer(
    layer: CompressedLayer, code: MethodCode, teacher: nn.Module, plugins: Plugins
) -> CompressedLayer:
    """A layer with its new code, and its error against the teacher's weight."""
    weight = teacher.state_dict().get(weight_key(layer.layer.name))
    if weight is None or tuple(weight.shape) != layer.layer.shape:
        return replace(layer, compressed=code, error=MatrixError(float("nan"), float("nan")))
    matrix = weight.detach().float().cpu().reshape(code.code.shape)
    return replace(layer, compressed=code, error=matrix_error(matrix, decode(code, plugins)))
