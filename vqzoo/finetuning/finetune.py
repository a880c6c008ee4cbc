"""`vqzoo.finetune`."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from vqzoo.compression.decode import decode
from vqzoo.compression.folding import with_plain_weights
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.measures.distortion import MatrixError, matrix_error
from vqzoo.compression.norms.folding import fold_into
from vqzoo.compression.view import weight_key
from vqzoo.data.class_map import ClassMap
from vqzoo.data.sources import ReadOptions
from vqzoo.errors import UsageError, invalid_field
from vqzoo.finetuning.images import open_or_convert
from vqzoo.finetuning.loop import tune
from vqzoo.finetuning.settings import Finetuning
from vqzoo.network.compressed_model import CompressedModel
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import SilentWatcher, Watcher
from vqzoo.wrappers import without_wrappers

Settings = TypeVar("Settings", bound=BaseModel)


def finetune(
    small: CompressedModel,
    data: str | Iterable[Any],
    *,
    teacher: nn.Module,
    validation: Iterable[Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    class_map: ClassMap | None = None,
    skip_unreadable: bool = False,
    checkpoint: str | Path | None = None,
    progress: Watcher | None = None,
    **settings: Any,
) -> CompressedModel:
    """Train the floats of a compressed network to give the logits of the dense network.

    Codes do not change, and so neither does the size. The result has the values of the epoch of
    least validation loss, the start included; without validation images, those after the last
    epoch.

    Args:
        small: the compressed network; it is not changed.
        data: preprocessed batches, each a tensor of images (B, C, H, W) or a pair of images and
            labels (B,), for instance from a `torch.utils.data.DataLoader`; or text as for
            `vqzoo finetune --data`.
        teacher: the network that `small` was compressed from, or another with the same classes;
            the errors of layers that the teacher lacks, or has in another shape, are then NaN.
        validation: batches held out of training. For data given as text, a part is held out.
        seed: order and augmentation of data given as text. The same seed gives the same values on
            one machine with one number of threads.
        device: where to train.
        class_map: the class of each folder of "imagefolder:PATH", as for `vqzoo.evaluate`.
        skip_unreadable: leave out images of data given as text that cannot be read, with a warning,
            instead of failing.
        checkpoint: file written after each epoch; if it exists, training resumes from it.
        progress: progress callbacks.
        **settings: `epochs` and the other fields of `Finetuning`.

    Returns:
        The fine-tuned network.

    Raises:
        UsageError: `small` is not a compressed network or `teacher` not a network with weights, a
            setting is unknown or out of bounds, or the text of `data` is not valid.
        VqzooError: the network has nothing to train, or training diverged.

    Examples:
        >>> better = vqzoo.finetune(small, loader, teacher=model, epochs=5)
    """
    if not isinstance(small, CompressedModel):
        raise UsageError(
            f"finetune takes what vqzoo.compress returns, not a {type(small).__name__}"
        )
    chosen = parse_settings(settings)
    teacher, _ = with_plain_weights(without_wrappers(teacher))
    read = ReadOptions(class_map, skip_unreadable)
    images = open_or_convert(data, validation, small.module, chosen, seed, read)
    with plugin_files(small.plugin_files):
        plugins = installed_plugins()
    result = tune(
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
    dense = _with_norms_of(small, teacher)
    layers = [
        _with_code(layer, result.codes[layer.layer.name], dense, plugins) for layer in small.layers
    ]
    return CompressedModel(
        result.module,
        layers,
        small.skipped,
        small.plugin_files,
        rest=small.rest,
        budget=small.budget,
        norms=small.norms,
    )


def parse_settings(given: dict[str, Any]) -> Finetuning:
    """Validate settings of fine-tuning.

    Raises:
        UsageError: one line that names the setting.
    """
    return validated_settings(Finetuning, given, "fine-tuning")


def validated_settings(kind: type[Settings], given: dict[str, Any], task: str) -> Settings:
    """Validate settings.

    Args:
        kind: the settings' class.
        given: its fields.
        task: what they are settings of, for messages.

    Raises:
        UsageError: one line that names the setting.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        field = invalid_field(error)
        if field.unknown:
            known = ", ".join(kind.model_fields)
            raise UsageError(f"{task} has no setting {field.name!r}; it has: {known}") from None
        raise UsageError(f"{field.name}={field.value!r}: {field.reason}") from None


def _with_norms_of(small: CompressedModel, teacher: nn.Module) -> nn.Module:
    """The teacher with the norms folded that are folded in the compressed network, if it has
    them."""
    try:
        return fold_into(teacher, small.norms) if small.norms else teacher
    except UsageError:
        return teacher


def _with_code(
    layer: CompressedLayer, code: MethodCode, teacher: nn.Module, plugins: Plugins
) -> CompressedLayer:
    """Replace the code of a layer, and measure its error against the teacher's weight."""
    weight = teacher.state_dict().get(weight_key(layer.layer.name))
    if weight is None or tuple(weight.shape) != layer.layer.shape:
        return replace(layer, compressed=code, error=MatrixError(float("nan"), float("nan")))
    matrix = weight.detach().float().cpu().reshape(code.code.shape)
    return replace(layer, compressed=code, error=matrix_error(matrix, decode(code, plugins)))
