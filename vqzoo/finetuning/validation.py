"""How good the network is that would be stored, on images held out of the training images."""

import torch
from torch import nn

from vqzoo.data.batches import Data
from vqzoo.errors import VqzooError
from vqzoo.finetuning.loss import loss_of
from vqzoo.finetuning.settings import Finetuning


class Validation:
    """Held-out images and the teacher's answers, which are asked for once."""

    def __init__(
        self, teacher: nn.Module, data: Data, settings: Finetuning, device: torch.device
    ) -> None:
        self._data, self._settings, self._device = data, settings, device
        with torch.no_grad():
            self._answers = [teacher(batch.images.to(device)) for batch in data]

    @torch.no_grad()
    def measure(self, model: nn.Module) -> tuple[float, float]:
        """Loss, and accuracy in percent (agreement with the teacher where there are no labels)."""
        model.to(self._device)
        total, right, images = 0.0, 0, 0
        for batch, answers in zip(self._data, self._answers, strict=True):
            labels = None if batch.labels is None else batch.labels.to(self._device)
            logits = model(batch.images.to(self._device))
            total += len(logits) * float(loss_of(logits, answers, labels, self._settings))
            wanted = answers.argmax(1) if labels is None else labels
            right += int((logits.argmax(1) == wanted).sum())
            images += len(logits)
        model.cpu()
        if not images:
            raise VqzooError(f"{self._data.name} has no image to validate on")
        return total / images, 100 * right / images
