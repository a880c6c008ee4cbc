"""The request of `vqzoo distill`, its hash and its command."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from vqzoo.artifact.files import canonical_json, sha256_text
from vqzoo.command_options import CommandOption, OptionGroup, command_words, public_data_name
from vqzoo.distillation.settings import Distillation
from vqzoo.models.sources import LOCAL_DIR, split_source
from vqzoo.plugin.text import json_value_text, parse_json_pairs
from vqzoo.runs.fields.reading import ClassMapFile, SkipUnreadable, check_class_map, reading_fields
from vqzoo.runs.fields.shared import Device, MeasuredImages, Seed, make_request

_TRAINING = "Training"
_SHARED = ("temperature", "batch_size", "patience", "images", "augment")


class DistillRequest(BaseModel):
    """A student, its teacher, how to train, and what to measure on.

    The fields stand in the order of the canonical command.

    Attributes:
        student: a timm model, "local-dir:PATH", "hf-hub:ORG/NAME", or an artifact.
        teacher: the same.
        settings: how to train, and on what.
        weights: the student's weights at the start.
        checkpoint: a file with the student's weights.
        model_args: further arguments of timm's factory for the student.
        image_size: height and width of the student's images; None for the teacher's if its weights
            are random, else its own.
        teacher_checkpoint: a file with the teacher's weights.
        teacher_args: further arguments of timm's factory for the teacher.
        data: what to measure on; None for the teacher's own.
        measured_images: measure on at most this many.
        class_map: the class of each class folder, for training and measuring.
        skip_unreadable: leave out images that cannot be read.
        seed: random weights, order and augmentation of the images, and dropout.
        device: where to train and to measure.
        plugins: plugin files that an artifact was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: str = Field(min_length=1)
    teacher: str = Field(min_length=1)
    settings: Annotated[
        Distillation, OptionGroup({name: {"panel": _TRAINING} for name in _SHARED})
    ] = Distillation()
    weights: Annotated[
        Literal["pretrained", "random"],
        CommandOption(
            "--weights", help="The student's weights: pretrained or random.", panel="Student"
        ),
    ] = "pretrained"
    checkpoint: Annotated[
        Path | None,
        CommandOption(
            "--checkpoint",
            help="The student's weights: .safetensors, or a state dict saved by torch.",
            default="the pretrained weights",
            panel="Student",
        ),
    ] = None
    model_args: Annotated[
        dict[str, JsonValue],
        CommandOption(
            "--model-arg",
            help="An argument for timm.create_model, for the student: channels=[16,32,48,48], "
            "img_size=28, patch_size=4; repeatable.",
            metavar="NAME=VALUE",
            panel="Student",
            read=parse_json_pairs,
            write=json_value_text,
        ),
    ] = {}
    image_size: Annotated[
        int | None,
        Field(ge=1, le=4096),
        CommandOption(
            "--image-size",
            help="Height and width of the student's images.",
            default="the teacher's with random weights, else the student's own",
            panel="Student",
        ),
    ] = None
    teacher_checkpoint: Annotated[
        Path | None,
        CommandOption(
            "--teacher-checkpoint",
            help="The teacher's weights, where they are in a file.",
            panel="Teacher",
        ),
    ] = None
    teacher_args: Annotated[
        dict[str, JsonValue],
        CommandOption(
            "--teacher-arg",
            help="An argument for timm.create_model, for the teacher; repeatable.",
            metavar="NAME=VALUE",
            panel="Teacher",
            read=parse_json_pairs,
            write=json_value_text,
        ),
    ] = {}
    data: Annotated[
        str | None,
        CommandOption(
            "--eval-data",
            help="What to measure teacher and student on, as in `vqzoo run --data`.",
            default="the teacher's own, where vqzoo ships it",
            metavar="DATA",
            write=public_data_name,
        ),
    ] = None
    measured_images: MeasuredImages = None
    class_map: ClassMapFile = None
    skip_unreadable: SkipUnreadable = False
    seed: Seed = 0
    device: Device = "cpu"
    plugins: Annotated[
        tuple[Path, ...],
        CommandOption(
            "--plugin",
            help="A plugin file that an artifact was made with; repeatable.",
            metavar="FILE.py",
        ),
    ] = ()

    @model_validator(mode="after")
    def _options_fit(self) -> "DistillRequest":
        if self.checkpoint is not None and self.weights == "random":
            raise ValueError("give a checkpoint or random weights, not both")
        check_class_map(self.class_map, self.data, self.settings.data)
        return self


def make_distill_request(fields: Mapping[str, Any]) -> DistillRequest:
    """Validate the fields of a request.

    Raises:
        UsageError: one line that names the field.
    """
    return make_request(DistillRequest, fields)


def distill_digest(
    request: DistillRequest,
    weights: tuple[str, str],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """A hash of the request and of what it resolved to.

    Args:
        request: the request.
        weights: the hashes of the student's weights and the teacher's.
        config: the student's timm config.
        versions: of the plugins.

    Raises:
        OSError: the class map cannot be read.
    """
    fields = {
        "settings": request.settings.model_dump(mode="json"),
        "weights": list(weights),
        "config": dict(config),
        "data": [request.data, request.measured_images],
        "seed": request.seed,
        "device": request.device,
        "versions": dict(versions),
        **reading_fields(request.class_map, request.skip_unreadable),
    }
    return sha256_text(canonical_json(fields))


def distill_command(request: DistillRequest) -> str:
    """The command that makes the student again, without local paths."""
    student, teacher = (public_name(name) for name in (request.student, request.teacher))
    return shlex.join(["vqzoo", "distill", student, "--teacher", teacher, *command_words(request)])


def public_name(name: str) -> str:
    """A network's name as the user typed it; of a folder only the last component."""
    kind, rest = split_source(name)
    if kind == LOCAL_DIR:
        return f"{LOCAL_DIR}:{Path(rest).resolve().name}"
    return Path(name).resolve().name if Path(name).is_dir() else name
