"""`local[:N]`: processes on this machine."""

from concurrent.futures import Executor

from vqzoo.errors import UsageError
from vqzoo.numerics.threads import thread_count
from vqzoo.plugin import CallResources, Engine
from vqzoo_executors.local_executor import LocalExecutor


class Local(Engine):
    """N processes on this machine, which share its cores."""

    name = "local"
    summary = "N processes on this machine, one a core by default: local:4"

    def check(self, address: str) -> None:
        """See `Engine.check`."""
        _processes(address)

    def start(self, address: str, resources: CallResources) -> Executor:
        """See `Engine.start`; a process starts when there is a call for it."""
        processes = _processes(address)
        return LocalExecutor(processes, resources.cpus or max(1, thread_count() // processes))


def _processes(address: str) -> int:
    if not address:
        return thread_count()
    if not (address.isascii() and address.isdecimal() and int(address) >= 1):
        raise UsageError(f"--executor local:{address}: write local, or local:N for N processes")
    return int(address)
