"""How a small network learns from a large one."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vqzoo.command_options import CommandOption, public_data_name
from vqzoo.finetuning.settings import (
    Augment,
    BatchSize,
    OptimizerName,
    Patience,
    Temperature,
    TrainImages,
)

_PANEL = "Training"

# The initial learning rate by optimizer, of random and of trained weights.
_RATES = {"adam": (2e-3, 2e-4), "sgd": (0.1, 0.01)}


class Distillation(BaseModel):
    """Everything that decides what a student learns.

    Attributes:
        epochs: passes over the training images, at most.
        data: training images, as `open_training_data` takes them; None for the teacher's own.
        label_weight: weight of the labels' part of the loss, 0 to 1; the teacher's part has weight
            1 - label_weight. Without labels, the teacher's part is the whole loss.
        optimizer: "adam" (AdamW) or "sgd" (momentum 0.9).
        lr: learning rate at the start; None for 0.002 (adam) or 0.1 (sgd) from random weights, and
            a tenth of that from trained ones. It rises from 0 during the first twentieth of
            training, and falls to 0 along half a cosine.
        weight_decay: decay of matrices and convolutions, per step and learning rate (AdamW) or as
            part of the gradient (SGD).
        temperature: T of the softened outputs.
        batch_size: images per step, at least 2.
        patience: epochs without a better validation loss before training stops; None for never.
        images: at most this many training images; None for all.
        augment: whether training images are shifted and mirrored (or cropped) at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[
        int,
        Field(ge=1, le=100_000),
        CommandOption(
            "--epochs",
            help="Train for at most this many passes over the training images.",
            panel=_PANEL,
            always=True,
        ),
    ] = 30
    data: Annotated[
        str | None,
        CommandOption(
            "--train-data",
            help="Images to learn from, some of them held out for validation: fmnist (embedded "
            "training images), fmnist:FOLDER (all of them, from the IDX files), imagefolder:PATH, "
            "or a timm data set, split train. They need no labels.",
            default="the teacher's own, where vqzoo ships them",
            metavar="DATA",
            panel=_PANEL,
            write=public_data_name,
        ),
    ] = None
    label_weight: Annotated[
        float,
        Field(ge=0, le=1),
        CommandOption(
            "--label-weight",
            help="Weight of the labels against the teacher, where there are labels: 0 learns from "
            "the teacher alone, 1 from the labels alone.",
            panel=_PANEL,
        ),
    ] = 0.1
    optimizer: Annotated[
        OptimizerName,
        CommandOption("--optimizer", help="adam (AdamW) or sgd (momentum 0.9).", panel=_PANEL),
    ] = "adam"
    lr: Annotated[
        float | None,
        Field(gt=0, le=10),
        CommandOption(
            "--lr",
            help="Initial learning rate; it falls to 0 along half a cosine.",
            default="0.002 (adam) or 0.1 (sgd) from random weights, a tenth of that from trained "
            "ones",
            panel=_PANEL,
        ),
    ] = None
    weight_decay: Annotated[
        float,
        Field(ge=0, le=1),
        CommandOption(
            "--weight-decay", help="Decay of all weights but biases and norms.", panel=_PANEL
        ),
    ] = 0.05
    temperature: Temperature = 2.0
    batch_size: BatchSize = 64
    patience: Patience = None
    images: TrainImages = None
    augment: Augment = True

    @field_validator("batch_size")
    @classmethod
    def _batch_norms_have_a_variance(cls, value: int) -> int:
        if value < 2:
            raise ValueError("a batch norm needs at least 2 images per step")
        return value

    @property
    def alpha(self) -> float:
        """Weight of the teacher's part of the loss."""
        return 1 - self.label_weight

    def initial_rate(self, *, random: bool) -> float:
        """The learning rate at the start, for random or for trained weights."""
        if self.lr is not None:
            return self.lr
        from_random, from_trained = _RATES[self.optimizer]
        return from_random if random else from_trained
