"""`ray[:ADDRESS]`: tasks on a cluster of Ray."""

import os
import re
import warnings
from concurrent.futures import Executor
from importlib.util import find_spec

from vqzoo.errors import UsageError, VqzooError, VqzooWarning, one_line
from vqzoo.plugin import CallResources, Engine

_ADDRESS = re.compile(r"(?:ray://)?(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


class Ray(Engine):
    """Tasks of Ray, on this machine or on a cluster."""

    name = "ray"
    summary = "tasks of Ray, on this machine or a cluster: ray:HOST:6379, ray:ray://HOST:10001"

    def check(self, address: str) -> None:
        """See `Engine.check`."""
        if address not in ("", "auto", "local") and not _ADDRESS.fullmatch(address):
            raise UsageError(
                f"--executor ray:{address}: write ray, ray:auto, ray:local, ray:HOST:PORT or "
                "ray:ray://HOST:PORT"
            )
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: pip install 'vqzoo[ray]'")

    def start(self, address: str, resources: CallResources) -> Executor:
        """See `Engine.start`.

        Without an address, Ray connects to RAY_ADDRESS, or to a cluster that runs on this machine,
        and starts one if there is none. `local` always starts one, and `auto` never. Where the
        process is connected already, it stays so.
        """
        self.check(address)
        import ray

        from vqzoo_executors.ray_executor import RayExecutor

        connected = ray.is_initialized()
        if not connected:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                ray.init(address or None, log_to_driver=False, logging_level="warning")
            except Exception as error:  # Ray raises whatever its parts raise
                where = f"to {address}" if address else "or start"
                raise VqzooError(f"Ray does not connect {where}: {one_line(error)}") from error
        try:
            _warn_of_waiting(ray.nodes(), resources)
            return RayExecutor(resources, disconnect=not connected)
        except BaseException:
            if not connected:
                ray.shutdown()
            raise


def _warn_of_waiting(nodes: list[dict], resources: CallResources) -> None:
    """Say so if no node could ever run a call: Ray would wait in silence for one that can."""
    needs = {
        "CPU": float(resources.cpus or 1),
        "GPU": resources.gpus,
        "memory": float(resources.memory_bytes or 0),
    }
    sizes = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(size.get(kind, 0.0) >= need for kind, need in needs.items()) for size in sizes):
        return
    need = ", ".join(f"{kind} {need:g}" for kind, need in needs.items() if need)
    warnings.warn(
        f"no node of the Ray cluster has what one call needs ({need}); calls wait until one joins",
        VqzooWarning,
        stacklevel=3,
    )
