"""Products of fc6 with a few inputs, straight from codes, beside torch's: `products_from_codes`."""

import pytest
import torch
from products_from_codes import milliseconds, runs
from report import Result

from vqzoo.numerics.threads import use_threads

TORCH = ("float32", "bfloat16")


@pytest.mark.parametrize("batch", [1, 8])
def test_products(batch: int, results: list[Result]) -> None:
    with use_threads(1), torch.inference_mode():
        for what, run in runs("fc6", batch):
            seconds = milliseconds(run) / 1e3
            assert torch.isfinite(run()).all(), what
            task, library = ("dense", what) if what in TORCH else (what, "vqzoo")
            name = f"product {task}, batch {batch}"
            results.append(Result("alexnet.fc6", name, library, seconds, 0.0, None, 1.0))
