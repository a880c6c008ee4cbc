"""The parts of a record that describe calibration, repair, recovery and fine-tuning."""

from pydantic import Field

from vqzoo.report.block import Block, Count, Options


class CalibrationRecord(Block):
    """The images by which methods weighted errors."""

    data: str
    """The images, without local folders."""
    images: Count | None
    """Number of images; null if unknown."""
    sequential: bool = False
    """Whether each layer was calibrated behind the layers compressed before it; absent where it was
    not."""


class Divergence(Block):
    """Mean KL divergence from the dense network's answers, in nats; null if not finite."""

    before: float | None
    """Before the correction."""
    after: float | None
    """After the correction."""


class RepairRecord(Block):
    """Biases and batch norm statistics that were corrected without labels."""

    data: str
    """The images, without local folders."""
    images: Count
    """Number of images."""
    biases: tuple[str, ...]
    """Layers whose biases were corrected."""
    norms: tuple[str, ...]
    """Batch norms whose statistics were moved."""
    divergence: Divergence
    """Divergence from the dense network on the quarter of these images that was held out and
    decided what to keep."""


class RecoveryRecord(Block):
    """How the network learned the dense network's answers again, on a few images without labels."""

    data: str
    """The images, without local folders."""
    images: Count
    """Images that it learned from."""
    held_out: Count
    """Images that decided what was kept: neither calibration nor recovery learned from them."""
    biases: tuple[str, ...]
    """Layers whose biases were corrected at the start."""
    norms: tuple[str, ...]
    """Batch norms whose statistics were moved at the start."""
    blocks: tuple[str, ...] = ()
    """Blocks that then learned what the dense network's blocks return, one after the other."""
    best_epoch: Count
    """The epoch whose values were kept; 0 for the values from before the first."""
    codes: Count = 0
    """How many codes had moved by then; those that moved twice count twice."""
    epochs: tuple[float | None, ...]
    """Divergence on the held-out images, in nats: before the first epoch, and after each; null if
    not finite."""
    divergence: Divergence
    """Divergence from the dense network on the held-out images, without recovery and with it."""


class RestRecord(Block):
    """How the tensors that stay dense are stored, where it is not as they were."""

    dtype: str
    """`float16`."""
    tensors: Count
    """Number of tensors that were rounded to it."""
    kept: tuple[str, ...]
    """Tensors that were not: their largest value is beyond its range, or too small for it."""
    error: float
    """Largest error of a value by rounding, as a share of its tensor's largest."""


class NormsRecord(Block):
    """Batch norms that were folded into the layers before them, before anything was compressed.

    Every batch norm is stored as a scale and a shift; those that were folded, as a shift alone.
    """

    folded: dict[str, str]
    """Norm to the layer whose weights have its scale."""
    kept: dict[str, str]
    """Norms of any kind that were not folded, each with the reason."""
    difference: float | None
    """Largest difference of the dense network's answers to random images by folding, as a share of
    the largest answer; null if unknown."""


class StageRecord(Block):
    """One stage of a run that fine-tunes; the first stage is the dense network.

    The dense network has only `method` and `bytes`. A stage whose packing is not `bits` appears
    twice, once for each packing.
    """

    method: str
    """Methods of the stage, `dense` for the dense network."""
    options: dict[str, Options] = Field(default_factory=dict)
    """Layer name to the options of its method."""
    best_epoch: Count | None = None
    """The epoch whose values were kept; 0 for the values before fine-tuning."""
    validation_loss: float | None = None
    """Loss of that epoch on the held-out images; null without any."""
    validation_top1: float | None = None
    """Top-1 accuracy of that epoch on the held-out images in percent; null without any."""
    packing: str = "fp32"
    """How the codes are packed."""
    bytes: Count
    """Size of the weights file."""


class EpochRecord(Block):
    """One epoch of fine-tuning; epoch 0 is the state before it."""

    epoch: Count
    """Number of the epoch."""
    loss: float | None
    """Mean training loss; null for epoch 0."""
    validation_loss: float | None
    """Loss on the held-out images; null without any."""
    validation_top1: float | None
    """Top-1 accuracy on the held-out images in percent, or without labels the percentage of the
    teacher's answers; null without held-out images."""


class FinetuningRecord(Block):
    """How the network was fine-tuned: the settings, and what came of them."""

    epochs: Count
    """Epochs at most."""
    train: str
    """What was trained: `codebooks`, `norms` or `all`."""
    optimizer: str
    """`adam` or `sgd`."""
    lr: float
    """Initial learning rate, relative to each tensor's root mean square."""
    temperature: float
    """Temperature of the softened outputs."""
    alpha: float
    """Weight of the teacher's part of the loss."""
    batch_size: Count
    """Images per step."""
    images: Count | None
    """Number of training images; null if unknown."""
    augment: bool
    """Whether training images were augmented."""
    patience: Count | None
    """Epochs without improvement before training stops; null for no limit."""
    data: str
    """The training images, without local folders."""
    best_epoch: Count
    """The epoch whose values were kept; 0 for the values before fine-tuning."""
    history: tuple[EpochRecord, ...]
    """All epochs, starting with epoch 0."""
    teacher: str | None = None
    """The teacher; the dense model where `vqzoo run` fine-tuned, which leaves the key out."""
    seed: int | None = None
    """Seed of `vqzoo finetune`; `vqzoo run` leaves the key out."""
