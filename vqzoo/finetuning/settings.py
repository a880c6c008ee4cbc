"""How a compressed network is fine-tuned."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vqzoo.command_options import CommandOption, public_data_name

TrainedParts = Literal["codebooks", "norms", "all"]
OptimizerName = Literal["adam", "sgd"]

_PANEL = "Fine-tuning"

# Settings that `Distillation` has, too.
Temperature = Annotated[
    float,
    Field(gt=0, le=100),
    CommandOption(
        "--temperature",
        help="T: the teacher's and the student's logits are divided by it.",
        panel=_PANEL,
    ),
]
BatchSize = Annotated[
    int,
    Field(ge=1, le=65536),
    CommandOption("--batch-size", help="Images per step.", panel=_PANEL),
]
Patience = Annotated[
    int | None,
    Field(ge=1),
    CommandOption(
        "--patience",
        help="Stop after this many epochs without a better validation loss; the best epoch is "
        "kept in any case.",
        default="never",
        panel=_PANEL,
    ),
]
TrainImages = Annotated[
    int | None,
    Field(ge=1),
    CommandOption(
        "--train-images",
        help="Train on at most this many images.",
        default="all",
        panel=_PANEL,
    ),
]
Augment = Annotated[
    bool,
    CommandOption("--no-augment", help="Take training images as they are.", panel=_PANEL),
]


class Finetuning(BaseModel):
    """Everything that decides what fine-tuning makes of a compressed network.

    Attributes:
        epochs: passes over the training images, at most.
        data: training images, as `open_training_data` takes them; None for the model's own.
        train: "codebooks": what the methods declare continuous (codebooks, scales, factors);
            "norms": weights and biases of norm layers besides; "all": every other bias, too.
        optimizer: "adam" or "sgd" (momentum 0.9).
        lr: learning rate at the start, relative to each tensor's root mean square (a centroid of
            size 1 and a row scale of size 0.01 move at the same relative pace); it falls to 0 along
            half a cosine over all epochs.
        temperature: T of the softened outputs.
        alpha: weight of the teacher's part of the loss; the labels' part has weight 1 - alpha.
        batch_size: images per step.
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
            help="Fine-tune for at most this many passes over the training images: the dense model "
            "teaches the compressed one.",
            metavar="EPOCHS",
            panel=_PANEL,
            always=True,
        ),
    ] = 10
    data: Annotated[
        str | None,
        CommandOption(
            "--data",
            help="Images to fine-tune on, some of them held out for validation: fmnist (embedded "
            "training images), fmnist:FOLDER (all of them, from the IDX files), imagefolder:PATH, "
            "or a timm data set, split train.",
            default="the model's own, where vqzoo ships them",
            panel=_PANEL,
            write=public_data_name,
        ),
    ] = None
    train: Annotated[
        TrainedParts,
        CommandOption(
            "--train",
            help="What to train: codebooks (what the methods store as floats: codebooks, scales, "
            "factors), norms (these and the norm layers), all (these and every bias). Codes never "
            "change.",
            panel=_PANEL,
        ),
    ] = "all"
    optimizer: Annotated[
        OptimizerName, CommandOption("--optimizer", help="adam or sgd.", panel=_PANEL)
    ] = "adam"
    lr: Annotated[
        float,
        Field(gt=0, le=10),
        CommandOption(
            "--lr",
            help="Initial learning rate, relative to each tensor's size; it falls to 0 along half "
            "a cosine.",
            panel=_PANEL,
        ),
    ] = 2e-3
    temperature: Temperature = 2.0
    alpha: Annotated[
        float,
        Field(ge=0, le=1),
        CommandOption(
            "--alpha",
            help="Weight of the teacher against the labels; 1 where there are no labels.",
            panel=_PANEL,
        ),
    ] = 0.9
    batch_size: BatchSize = 64
    patience: Patience = None
    images: TrainImages = None
    augment: Augment = True
