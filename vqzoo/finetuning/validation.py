"""Loss and accuracy on images held out of training."""

import torch
from torch import nn

from vqzoo.data.batches import Data
from vqzoo.errors import VqzooError
from vqzoo.finetuning.loss import LossSettings, loss_of


class Validation:
    """Held-out images, with the teacher's logits computed once.

    Args:
        teacher: the teacher, on `device`, in eval mode.
        data: the held-out images.
        settings: temperature and weights of the loss.
        device: where to run the networks.
        views: the same images, preprocessed for the teacher; None where it
            takes them as the student does.
    """

    def __init__(
        self,
        teacher: nn.Module,
        data: Data,
        settings: LossSettings,
        device: torch.device,
        views: Data | None = None,
    ) -> None:
        self._data, self._settings, self._device = data, settings, device
        with torch.no_grad():
            self._targets = [teacher(batch.images.to(device)) for batch in views or data]

    @torch.no_grad()
    def measure(self, model: nn.Module) -> tuple[float, float]:
        """Measure a network; it is moved to the device, and to the CPU afterwards.

        Returns:
            Mean loss in nats, and top-1 in percent (agreement with the teacher without labels).

        Raises:
            VqzooError: there is no held-out image.
        """
        model.to(self._device)
        total, right, images = 0.0, 0, 0
        for batch, targets in zip(self._data, self._targets, strict=True):
            labels = None if batch.labels is None else batch.labels.to(self._device)
            logits = model(batch.images.to(self._device))
            total += len(logits) * float(loss_of(logits, targets, labels, self._settings))
            classes = targets.argmax(1) if labels is None else labels
            right += int((logits.argmax(1) == classes).sum())
            images += len(logits)
        model.cpu()
        if not images:
            raise VqzooError(f"{self._data.name} holds no validation image")
        return total / images, 100 * right / images
