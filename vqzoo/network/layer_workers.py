"""Workers for the layers that `vqzoo.compress` compresses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vqzoo.calls.engines import started_executor
from vqzoo.compression.workers.pool import LayerWorkers
from vqzoo.errors import UsageError
from vqzoo.plugin.execution.engine import CallResources
from vqzoo.plugin.manager import Plugins


@contextmanager
def layer_workers(
    executor: str | None, plugins: Plugins, device: torch.device, *, one_by_one: bool
) -> Iterator[LayerWorkers | None]:
    """Start an executor, with a temporary folder for the layers in flight.

    Args:
        executor: "local:4", or another that `vqzoo run --executor` takes; None for no workers.
        plugins: the installed plugins.
        device: where layers are compressed.
        one_by_one: whether each layer is compressed behind those before it.

    Raises:
        UsageError: there is no such executor, or layers cannot be compressed side by side.
        VqzooError: the workers cannot be started.
    """
    if executor is None:
        yield None
        return
    if one_by_one:
        raise UsageError(
            "executor= cannot be used: sequential=True compresses each layer behind those before "
            "it; leave out one of the two"
        )
    if device.type != "cpu":
        raise UsageError(
            f"executor= compresses layers on CPUs, not on device={str(device)!r}; leave out one of "
            "the two"
        )
    with (
        TemporaryDirectory(prefix="vqzoo-layers-", ignore_cleanup_errors=True) as folder,
        started_executor(executor, CallResources(), plugins) as started,
    ):
        assert started is not None
        yield LayerWorkers(started, Path(folder, "in-flight"), resumes=False)
