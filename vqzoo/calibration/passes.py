"""Passes of a network over the same images, and their progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from vqzoo.data.batches import Batch
from vqzoo.progress import Steps


class EndPass(Exception):
    """A hook raises this to end a forward pass that has come as far as it is needed."""


@contextmanager
def in_eval_mode(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on `device` and in eval mode; afterwards it is where and as it was."""
    training, home = model.training, next(model.parameters()).device
    try:
        model.to(device).eval()
        yield
    finally:
        model.to(home).train(training)


class Passes:
    """Runs networks on the same batches, and reports the images that they have gone through.

    Attributes:
        images: images in one pass.
        image_bytes: what the preprocessed images take, once a pass is over.
        planned: passes in all, of which the progress is a part; it may change on the way.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Batch]],
        images: int,
        device: torch.device,
        progress: Steps | None,
    ) -> None:
        self.images = images
        self.image_bytes = 0
        self.planned = 0
        self._batches = batches
        self._device = device
        self._progress = progress
        self._done = 0

    def run(self, network: nn.Module, least: int = 1) -> Iterator[Any]:
        """The network's answers, batch by batch; batches of fewer than `least` images are left out,
        and so are answers of passes that a hook ends."""
        image_bytes = 0
        for batch in self._batches():
            image_bytes += batch.images.nbytes
            with suppress(EndPass):
                if len(batch.images) >= least:
                    yield network(batch.images.to(self._device))
            self.advance(len(batch.images))
        self.image_bytes = image_bytes

    def all_images(self) -> list[torch.Tensor]:
        """The images of every batch, on the device."""
        return [batch.images.to(self._device) for batch in self._batches()]

    def advance(self, images: int) -> None:
        """Report that `images` more have been gone through."""
        self._done += images
        self._report()

    def finish(self) -> None:
        """Report that nothing is left to do."""
        self._done = self.planned * self.images
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            total = self.planned * self.images
            self._progress(min(self._done, total), total)
