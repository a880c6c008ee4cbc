"""Seeds of the random order in which a run takes its images."""

import hashlib

import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator of one epoch's order and augmentation; `seed` is the run's."""
    digest = hashlib.sha256(f"{seed}:epoch:{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
