"""The request of `vqzoo finetune`, and its hash."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vqzoo.artifact.files import canonical_json, sha256_text
from vqzoo.command_options import CommandOption, OptionGroup, public_data_name
from vqzoo.finetuning.settings import Finetuning
from vqzoo.runs.fields.reading import ClassMapFile, SkipUnreadable, check_class_map, reading_fields
from vqzoo.runs.fields.shared import Device, MeasuredImages, make_request

if TYPE_CHECKING:  # torch comes with these, and `vqzoo finetune --help` does without
    from vqzoo.artifact.reader import Artifact
    from vqzoo.models.dense import OpenedModel
    from vqzoo.plugin.manager import Plugins


class FinetuneRequest(BaseModel):
    """An artifact, how to fine-tune it, and what to measure it on.

    The fields stand in the order of the canonical command.

    Attributes:
        source: the artifact's folder, or its repository on the Hub.
        settings: how to fine-tune, and on what.
        teacher: a timm model to learn from; None for the dense model that the record names.
        checkpoint: weights of the dense model, where it has none that timm knows.
        data: what to measure on; None for the dense model's own.
        images: measure on at most this many.
        class_map: the class of each class folder, for training and measuring.
        skip_unreadable: leave out images that cannot be read.
        seed: order and augmentation of the training images.
        device: where to train and to measure.
        plugins: plugin files that the artifact was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    settings: Annotated[Finetuning, OptionGroup()]
    teacher: Annotated[
        str | None,
        CommandOption(
            "--teacher",
            help="A timm model with the same classes to learn from.",
            default="the dense model that was compressed",
            metavar="MODEL",
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        CommandOption(
            "--checkpoint", help="Weights of the dense model, where they came from a file."
        ),
    ] = None
    data: Annotated[
        str | None,
        CommandOption(
            "--eval-data",
            help="What to measure on, as in `vqzoo run --data`.",
            default="the model's own, where vqzoo ships it",
            write=public_data_name,
        ),
    ] = None
    images: MeasuredImages = None
    class_map: ClassMapFile = None
    skip_unreadable: SkipUnreadable = False
    seed: Annotated[
        int, Field(ge=0), CommandOption("--seed", help="The same seed gives the same bytes.")
    ] = 0
    device: Device = "cpu"
    plugins: Annotated[
        tuple[Path, ...],
        CommandOption(
            "--plugin",
            help="A plugin file that the artifact was made with; repeatable.",
            metavar="FILE.py",
        ),
    ] = ()

    @model_validator(mode="after")
    def _class_map_has_a_folder(self) -> "FinetuneRequest":
        check_class_map(self.class_map, self.data, self.settings.data)
        return self


def make_finetune_request(fields: Mapping[str, Any]) -> FinetuneRequest:
    """Validate the fields of a request.

    Raises:
        UsageError: one line that names the field.
    """
    return make_request(FinetuneRequest, fields)


def finetune_digest(
    request: FinetuneRequest,
    artifact: "Artifact",
    dense: "OpenedModel",
    teacher: "OpenedModel",
    plugins: "Plugins",
) -> str:
    """A hash of the request and of the weights and plugin versions that it resolved to."""
    fields = {
        "source": artifact.block.sha256,
        "settings": request.settings.model_dump(mode="json"),
        "weights": [dense.weights_sha256, teacher.weights_sha256],
        "data": [request.data, request.images],
        "seed": request.seed,
        "device": request.device,
        "versions": {s.origin.distribution: s.origin.version for s in plugins.statuses},
        **reading_fields(request.class_map, request.skip_unreadable),
    }
    return sha256_text(canonical_json(fields))
