"""Run what was exported in a process of its own.

Some runtimes write remarks to stdout and stderr that nothing turns off, and a fault in them ends
the process.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from vqzoo.errors import VqzooError, one_line

Run = Callable[[Tensor], Tensor]


def runner_elsewhere(module: str, path: Path, runtime: str) -> Run:
    """What computes logits from images, by `python -m MODULE FILE IMAGES LOGITS`.

    Args:
        module: calls `answer_images`.
        path: the file that is run.
        runtime: its name, for messages.
    """

    def run(images: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory(prefix="vqzoo-run-") as parent:
            asked, answered = Path(parent, "images"), Path(parent, "logits")
            save_file({"images": images}, asked)
            words = [sys.executable, "-m", module, str(path), str(asked), str(answered)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                error = VqzooError(lines[-1])
                raise VqzooError(f"{runtime} cannot run {path.name}: {one_line(error)}")
            return load_file(answered)["logits"]

    return run


def answer_images(run: Run, images: str, logits: str) -> None:
    """Run on the images of a safetensors file, and write the logits to another."""
    save_file({"logits": run(load_file(images)["images"])}, logits)
