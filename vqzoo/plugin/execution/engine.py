"""The contract of an engine: it runs cells of a sweep, or layers of a run, here or elsewhere."""

from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from typing import ClassVar


class WorkerLost(BrokenExecutor):
    """The process of one call died: it was killed, or ran out of memory."""


@dataclass(frozen=True)
class CallResources:
    """What one call needs while it runs.

    Attributes:
        cpus: threads that the call computes with; None shares the machine's cores out among the
            workers.
        gpus: devices; a fraction lets several calls share one.
        memory_bytes: peak of resident memory; None if it is not known.
    """

    cpus: int | None = None
    gpus: float = 0.0
    memory_bytes: int | None = None


class Engine(ABC):
    """Starts workers, and runs calls on them.

    The user chooses it as `--executor NAME` or `--executor NAME:ADDRESS`. A module that defines an
    engine must import without the package that the engine runs on: `check` says what to install.

    Attributes:
        name: a-z, 0-9, - and _; unique among the engines of a distribution.
        summary: one line for `vqzoo plugins` and the help.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def check(self, address: str) -> None:
        """Check, within a second and without starting anything, that `start` can be tried.

        Args:
            address: the text behind `NAME:`; empty if the user gave none.

        Raises:
            UsageError: the address is malformed, or a package is missing.
        """

    @abstractmethod
    def start(self, address: str, resources: CallResources) -> Executor:
        """Start workers for calls that each need `resources`.

        `submit` of the executor takes a module-level function and arguments that pickle. Calls run
        in processes other than the caller's, started without the caller's state (spawned, not
        forked), with numerical libraries limited to the threads of `resources`. If the process of a
        call dies, that call's future raises `WorkerLost`, and other calls go on.
        `shutdown(cancel_futures=True)` interrupts calls that run, and returns when no process of
        the executor runs any more.

        Raises:
            UsageError: see `check`.
            VqzooError: the workers cannot be started; the message says why.
        """
