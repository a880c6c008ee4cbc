"""The student at the start: classes, channels and preprocessing that fit its teacher."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import get_model_traits
from torch import nn

from vqzoo.artifact.encode import tensors_sha256
from vqzoo.artifact.files import write_text
from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.data.model_input import input_of, input_size
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.models.create import create_on_meta
from vqzoo.models.dense import find_model
from vqzoo.models.sources import LOCAL_DIR
from vqzoo.models.timm_config import timm_config
from vqzoo.network.by_name import NamedNetwork, names_artifact, open_network
from vqzoo.progress import Watcher
from vqzoo.runs.distill.request import DistillRequest

# What a student with random weights takes over from its teacher.
_PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
_OF_OTHER_WEIGHTS = ("test_input_size", "min_input_size", "test_crop_pct", "pool_size")


@dataclass(frozen=True)
class Student:
    """The student before it learns.

    Attributes:
        name: its full timm name.
        module: the network, in eval mode; its `pretrained_cfg` says how it takes images.
        weights: where its weights came from; see `NamedNetwork`.
        sha256: hash of its weights.
        config: its timm config, for the folder.
    """

    name: str
    module: nn.Module
    weights: str
    sha256: str
    config: dict[str, Any]


def open_student(request: DistillRequest, teacher: NamedNetwork, watcher: Watcher) -> Student:
    """Open the student with the teacher's classes.

    Unless the request says otherwise, it has the teacher's number of channels, and with random
    weights it takes images as the teacher does.

    Raises:
        UsageError: student and teacher do not fit, or timm could not create the student again.
        VqzooError: its weights are not available, or do not fit.
    """
    classes = class_count(teacher)
    network = _open(request, teacher, classes, watcher)
    module = network.module
    if getattr(module, "num_classes", None) != classes:
        raise UsageError(
            f"{request.student} has {getattr(module, 'num_classes', 'no')} classes, the teacher "
            f"{request.teacher} {classes}: choose networks of the same classes"
        )
    _set_preprocessing(request, module, teacher.module, random=network.weights == "random")
    _check_runs(request.student, module)
    config = timm_config(module, pretrained=False)
    _check_opens_again(request.student, config)
    return Student(
        network.name, module, network.weights, tensors_sha256(module.state_dict()), config
    )


def class_count(teacher: NamedNetwork) -> int:
    """The number of the teacher's classes.

    Raises:
        UsageError: it has none.
    """
    classes = getattr(teacher.module, "num_classes", None)
    if not isinstance(classes, int) or classes < 1:
        raise UsageError(f"{teacher.label} has no classes to teach: choose a classifier")
    return classes


def _open(
    request: DistillRequest, teacher: NamedNetwork, classes: int, watcher: Watcher
) -> NamedNetwork:
    if names_artifact(request.student):
        if request.checkpoint or request.model_args or request.weights == "random":
            raise UsageError(
                f"{request.student} is an artifact, which has its weights and its architecture: "
                "leave out --weights, --checkpoint and --model-arg"
            )
        return open_network(request.student, watcher, plugins=request.plugins)
    chosen = request.model_args.get("num_classes", classes)
    if chosen != classes:
        raise UsageError(
            f"num_classes={chosen!r}, but the teacher {request.teacher} has {classes} classes: "
            "leave the argument out"
        )
    arguments = {"num_classes": classes, **request.model_args}

    def find(arguments: dict[str, Any]) -> NamedNetwork:
        opened = find_model(
            request.student,
            watcher,
            weights=request.weights,
            checkpoint=request.checkpoint,
            model_args=arguments,
            seed=request.seed,
        )
        return NamedNetwork(opened.module, opened.name, request.student, opened.weights)

    network = find(arguments)
    channels = input_of(teacher.module).config["input_size"][0]
    follows = "in_chans" not in arguments and request.checkpoint is None
    if follows and input_size(network.module)[0] != channels:
        return find({**arguments, "in_chans": channels})
    return network


def _set_preprocessing(
    request: DistillRequest, module: nn.Module, teacher: nn.Module, *, random: bool
) -> None:
    """Write into the student's `pretrained_cfg` how it takes images, and the names of its classes.

    Raises:
        UsageError: the student was built for images of another size than the request's.
    """
    cfg = dict(getattr(module, "pretrained_cfg", None) or {})
    theirs = input_of(teacher)
    channels, height, width = input_size(module)
    if random:
        cfg |= {key: theirs.config[key] for key in _PREPROCESSING if key in theirs.config}
        cfg = {key: value for key, value in cfg.items() if key not in _OF_OTHER_WEIGHTS}
        height, width = theirs.config["input_size"][1:]
    if request.image_size is not None:
        height = width = request.image_size
    built_for = get_model_traits(module).get("img_size")
    if built_for is not None:
        if request.image_size is not None and tuple(built_for) != (height, width):
            raise UsageError(
                f"{request.student} is built for images of {'x'.join(map(str, built_for))}: give "
                f"--model-arg img_size={request.image_size} in the place of --image-size"
            )
        height, width = built_for
    cfg["input_size"] = (channels, height, width)
    if theirs.label_names:
        cfg["label_names"] = list(theirs.label_names)
    module.pretrained_cfg = module.default_cfg = cfg  # type: ignore[assignment]  # torch's types


@torch.no_grad()
def _check_runs(name: str, module: nn.Module) -> None:
    """Run the student once.

    Raises:
        UsageError: it does not take images of its size.
    """
    size = input_of(module).config["input_size"]
    try:
        module(torch.zeros(1, *size))
    except Exception as error:
        raise UsageError(
            f"{name} cannot be run on images of {'x'.join(map(str, size))}: {one_line(error)}; "
            "--image-size and --model-arg change what it takes"
        ) from error


def _check_opens_again(name: str, config: dict[str, Any]) -> None:
    """Create the student from its config as timm will from its folder.

    Raises:
        VqzooError: timm cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / CONFIG_FILE, json.dumps(config))
        try:
            create_on_meta(f"{LOCAL_DIR}:{folder}", {})
        except Exception as error:
            raise VqzooError(
                f"timm could not open a folder with this {name} again: {one_line(error)}"
            ) from error
