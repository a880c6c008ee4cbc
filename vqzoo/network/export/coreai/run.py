"""Core AI assets in coreai-core's own runtime: `python -m vqzoo.network.export.coreai.run`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqzoo.network.export.elsewhere import answer_images


async def _run(path: Path, images: Tensor) -> Tensor:
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    answers: list[Tensor] = []
    async with AIModelAsset.load(path).executable() as model:
        function: Any = model.load_function("main")
        for image in images:
            answer = await function({"images": NDArray(image[None].numpy())})
            answers.append(torch.from_numpy(answer["logits"].numpy().copy()))
    return torch.cat(answers)


def run_asset(path: Path, images: Tensor) -> Tensor:
    """Logits (count, classes) of images (count, ...), by an .aimodel, one image after another."""
    return asyncio.run(_run(path, images))


if __name__ == "__main__":
    answer_images(lambda images: run_asset(Path(sys.argv[1]), images), *sys.argv[2:])
