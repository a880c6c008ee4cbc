"""From `--executor NAME:ADDRESS` to an executor."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from vqzoo.plugin.execution.engine import CallResources, Engine
from vqzoo.plugin.manager import Plugins


def find_engine(text: str, plugins: Plugins) -> tuple[Engine, str]:
    """The engine and the address that a text names, checked.

    Raises:
        UsageError: there is no such engine, it is not installed, or the address is malformed.
    """
    name, _, address = text.partition(":")
    engine = plugins.engines.get(name).item
    engine.check(address)
    return engine, address


@contextmanager
def started_executor(
    text: str | None, resources: CallResources, plugins: Plugins
) -> Iterator[Executor | None]:
    """Start an engine's workers for the block; none runs behind it, however it ends.

    Args:
        text: NAME or NAME:ADDRESS; None for no executor, which the block sees as None.
        resources: what each call needs.
        plugins: the installed plugins.

    Raises:
        UsageError: see `find_engine`.
        VqzooError: the workers cannot be started.
    """
    if text is None:
        yield None
        return
    engine, address = find_engine(text, plugins)
    executor = engine.start(address, resources)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
