"""Programs of ExecuTorch in its own runtime: `python -m vqzoo.network.export.pte.run`."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from vqzoo.network.export.elsewhere import Run, answer_images


def load_program(path: Path) -> Run:
    """Images (count, ...) to logits (count, classes), by a .pte file, one image after another."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def run(images: Tensor) -> Tensor:
        return torch.cat([method.execute([image[None]])[0].clone() for image in images])

    return run


if __name__ == "__main__":
    answer_images(load_program(Path(sys.argv[1])), *sys.argv[2:])
