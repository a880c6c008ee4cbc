"""`--threads`."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Limit torch and the kernels to `count` CPU threads; None leaves them as they are."""
    import torch

    from vqzoo.numerics.threads import use_threads

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        with use_threads(count):
            yield
    finally:
        torch.set_num_threads(before)
