"""`ray[:ADDRESS][,connect=SECONDS]`: tasks on a cluster of Ray."""

import os
import re
import warnings
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.util import find_spec

from vqzoo.errors import UsageError, VqzooWarning
from vqzoo.plugin import CallResources, Engine

_CLIENT = "ray://"
_CLUSTER = re.compile(r"(?:ray://)?(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
_SECONDS = re.compile(r"0*[1-9][0-9]{0,5}")
# Ray's own limits come first: 30 s to reach the cluster, and 30 s for the process of a client.
CONNECT_SECONDS = 120


@dataclass(frozen=True)
class Address:
    """Where the cluster is.

    Attributes:
        cluster: what `ray.init` takes; empty where it has the choice.
        seconds: how long a connection through Ray's server for clients may take.
    """

    cluster: str
    seconds: int


class Ray(Engine):
    """Tasks of Ray, on this machine or on a cluster."""

    name = "ray"
    summary = "tasks of Ray, on this machine or a cluster: ray:HOST:6379, ray:ray://HOST:10001"

    def check(self, address: str) -> None:
        """See `Engine.check`."""
        parse(address)
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: pip install 'vqzoo[ray]'")

    def start(self, address: str, resources: CallResources) -> Executor:
        """See `Engine.start`.

        Without an address, Ray connects to RAY_ADDRESS, or to a cluster that runs on this machine,
        and starts one if there is none. `local` always starts one, and `auto` never. Where the
        process is connected already, it stays so.
        """
        self.check(address)
        if resources.gpus > 1 and not float(resources.gpus).is_integer():
            raise UsageError(
                f"Ray gives a call a part of one GPU or whole ones, not {resources.gpus}"
            )
        import ray

        from vqzoo_executors.ray_connect import connect, connect_within
        from vqzoo_executors.ray_executor import RayExecutor

        connected = ray.is_initialized()
        if not connected:
            where = parse(address)
            if where.cluster.startswith(_CLIENT):
                connect_within(where.seconds, where.cluster)
            else:
                connect(where.cluster)
        try:
            _warn_of_waiting(ray.nodes(), resources)
            return RayExecutor(resources, disconnect=not connected)
        except BaseException:
            if not connected:
                ray.shutdown()
            raise


def parse(address: str) -> Address:
    """Read an address; RAY_ADDRESS takes the place of one that leaves the choice to Ray.

    Raises:
        UsageError: it is malformed.
    """
    cluster, *words = address.split(",")
    if "=" in cluster:
        cluster, words = "", [cluster, *words]
    if cluster not in ("", "auto", "local") and not _CLUSTER.fullmatch(cluster):
        raise UsageError(
            f"--executor ray:{address}: write ray, ray:auto, ray:local, ray:HOST:PORT or "
            "ray:ray://HOST:PORT"
        )
    if cluster in ("", "auto"):
        cluster = os.environ.get("RAY_ADDRESS") or cluster
    if not words:
        return Address(cluster, CONNECT_SECONDS)
    key, _, seconds = words[0].partition("=")
    if len(words) > 1 or key != "connect" or not _SECONDS.fullmatch(seconds):
        raise UsageError(
            f"--executor ray:{address}: behind the address comes connect=SECONDS, a whole number "
            "above 0, and nothing else"
        )
    if not cluster.startswith(_CLIENT):
        raise UsageError(
            f"--executor ray:{address}: connect=SECONDS goes with an address ray://HOST:PORT alone"
        )
    return Address(cluster, int(seconds))


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
