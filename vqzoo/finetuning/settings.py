"""How a compressed network is fine-tuned."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TrainedParts = Literal["codebooks", "norms", "all"]
OptimizerName = Literal["adam", "sgd"]


class Finetuning(BaseModel):
    """Everything that decides what fine-tuning makes of a compressed network.

    Attributes:
        epochs: passes over the training images, at most.
        data: training images, as `open_training_data` takes them; None for the model's own.
        train: "codebooks": what the methods declare continuous (codebooks, scales, factors);
            "norms": weights and biases of norm layers besides; "all": every other bias, too.
        optimizer: "adam" or "sgd" (momentum 0.9).
        lr: learning rate at the start, relative to each tensor's root mean square (a centroid of
            size 1 and a row scale of size 0.01 move at the same relative pace); it falls to 0 in
            half a cosine over all epochs.
        temperature: T of the softened outputs.
        alpha: weight of the teacher's part of the loss; 1 - alpha is the labels'.
        batch_size: images a step.
        images: at most this many training images; None for all.
        augment: whether training images are shifted and mirrored (or cropped) at random.
        patience: epochs without a better validation loss before it stops; None for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(10, ge=1, le=100_000)
    data: str | None = None
    train: TrainedParts = "all"
    optimizer: OptimizerName = "adam"
    lr: float = Field(2e-3, gt=0, le=10)
    temperature: float = Field(2.0, gt=0, le=100)
    alpha: float = Field(0.9, ge=0, le=1)
    batch_size: int = Field(64, ge=1, le=65536)
    images: int | None = Field(None, ge=1)
    augment: bool = True
    patience: int | None = Field(None, ge=1)

    def words(self) -> list[str]:
        """The command line's options that ask for this, all but epochs and data."""
        words: list[str] = []
        for name in ("train", "optimizer", "lr", "temperature", "alpha", "batch_size", "patience"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                words += ["--" + name.replace("_", "-"), str(value)]
        if self.images is not None:
            words += ["--train-images", str(self.images)]
        return words if self.augment else [*words, "--no-augment"]
