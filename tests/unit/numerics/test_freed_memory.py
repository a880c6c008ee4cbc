"""Freed memory goes back to the system when it should."""

import ctypes
from pathlib import Path

import pytest

from vqzoo.numerics.freed_memory import give_back_freed_memory

BLOCK = 100_000  # bytes; glibc maps blocks from 128 KiB on alone, and gives them back at once
STATUS = Path("/proc/self/statm")


def held_pages() -> int:
    return int(STATUS.read_text().split()[1])


@pytest.mark.skipif(
    not STATUS.exists() or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="memory is glibc's and Linux's",
)
def test_freed_memory_is_given_back() -> None:
    blocks = [bytearray(BLOCK) for _ in range(400)]
    last = blocks.pop()  # what lies below it stays with the C library
    blocks.clear()
    before = held_pages()

    give_back_freed_memory()

    assert len(last) == BLOCK
    assert before - held_pages() > 5_000  # of 10,000
