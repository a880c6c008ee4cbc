"""Preprocessed batches that stay in memory for the next pass over the same images."""

from collections.abc import Callable, Iterator

from vqzoo.data.batches import Batch

MEMORY = 1 << 30  # bytes


class KeptBatches:
    """Batches that are prepared once and kept, up to a bound; each call starts a pass.

    Each pass gets copies of the images, so that a network that works in place changes nothing for
    the next pass. Batches beyond the bound are prepared anew in every pass.
    """

    def __init__(self, prepare: Callable[[int], Iterator[Batch]], memory: int = MEMORY) -> None:
        """
        Args:
            prepare: prepares all batches from a position on, the same ones every time.
            memory: bytes of images to keep.
        """
        self._prepare = prepare
        self._free = memory
        self._kept: list[Batch] = []

    def __call__(self) -> Iterator[Batch]:
        position = 0
        while position < len(self._kept):
            yield copy_batch(self._kept[position])
            position += 1
        for batch in self._prepare(position):
            # A batch that does not fit leaves a gap, behind which nothing can be kept.
            if position == len(self._kept) and batch.images.nbytes <= self._free:
                self._kept.append(copy_batch(batch))
                self._free -= batch.images.nbytes
            yield batch
            position += 1


def copy_batch(batch: Batch) -> Batch:
    """A batch with a copy of its images."""
    return batch._replace(images=batch.images.clone())
