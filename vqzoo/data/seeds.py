"""Seeds of what a run draws from its images."""

import hashlib

import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """What an epoch draws order and augmentation from."""
    digest = hashlib.sha256(f"{seed}:epoch:{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
