"""Training images as fine-tuning settings ask for them."""

from torch import nn

from vqzoo.data.sources import ReadOptions
from vqzoo.data.training_data import TrainingData, open_training_data
from vqzoo.finetuning.settings import Finetuning


def open_images(
    spec: str, model: nn.Module, settings: Finetuning, seed: int, read: ReadOptions
) -> TrainingData:
    """`open_training_data` with the batch size, augmentation and number of images of `settings`."""
    return open_training_data(
        spec,
        model,
        batch_size=settings.batch_size,
        augment=settings.augment,
        images=settings.images,
        seed=seed,
        read=read,
    )
