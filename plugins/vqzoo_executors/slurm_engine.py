"""`slurm[:PARTITION][,KEY=VALUE...]`: jobs of Slurm."""

import math
import os
import re
import shutil
import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.plugin import CallResources, Engine

SBATCH = ("account", "constraint", "exclude", "qos")  # keys that sbatch has under the same names
KEYS = (*SBATCH, "cluster", "folder", "parallel", "time")
_PARTITION = re.compile(r"[\w.-]+")
_VALUE = re.compile(r"[^\s'\"`$\\;]+")
REQUEUES = 3  # of a call that runs out of time


@dataclass(frozen=True)
class Address:
    """What the user asks of Slurm.

    Attributes:
        partition: None for Slurm's default.
        local: whether submitit plays the cluster, with processes of this machine.
        folder: where the jobs' files are; every node must see it.
        parallel: calls submitted at a time.
        minutes: time limit of a call.
        sbatch: options of sbatch.
    """

    partition: str | None
    local: bool
    folder: Path
    parallel: int
    minutes: int
    sbatch: dict[str, str]


class Slurm(Engine):
    """Jobs of Slurm, in arrays."""

    name = "slurm"
    summary = "jobs of Slurm: slurm:PARTITION,time=MINUTES,qos=NAME"

    def check(self, address: str) -> None:
        """See `Engine.check`."""
        local = parse(address).local
        if find_spec("submitit") is None:
            raise UsageError("--executor slurm needs submitit: pip install 'vqzoo[slurm]'")
        if not local and shutil.which("sbatch") is None:
            raise UsageError(
                "--executor slurm: there is no sbatch here; run this on a login node of the "
                "cluster, or try it with slurm:cluster=local"
            )

    def start(self, address: str, resources: CallResources) -> Executor:
        """See `Engine.start`. A part of a GPU becomes a whole one: Slurm shares none."""
        self.check(address)
        from vqzoo_executors.slurm_executor import Pace, SlurmExecutor

        where = parse(address)
        where.folder.mkdir(parents=True, exist_ok=True)
        # submitit unpickles what it finds there: mkdtemp lets nobody else in.
        folder = Path(tempfile.mkdtemp(prefix="jobs-", dir=where.folder))
        try:
            cluster = _cluster(where, resources, folder)
        except Exception as error:  # submitit raises whatever its parts raise
            raise VqzooError(f"submitit does not start: {one_line(error)}") from error
        pace = Pace(where.parallel, *((0.1, 1.0) if where.local else (2.0, 30.0)))
        return SlurmExecutor(cluster, folder, resources.cpus or 1, pace)


def _cluster(where: Address, resources: CallResources, folder: Path) -> Any:
    """An executor of submitit with its parameters set."""
    import submitit

    cluster = submitit.AutoExecutor(
        folder, cluster="local" if where.local else "slurm", slurm_max_num_timeout=REQUEUES
    )
    parameters: dict[str, Any] = {
        "name": "vqzoo",
        "timeout_min": where.minutes,
        "cpus_per_task": resources.cpus or 1,
        "slurm_array_parallelism": where.parallel,
        **{f"slurm_{key}": value for key, value in where.sbatch.items()},
    }
    if where.partition is not None:
        parameters["slurm_partition"] = where.partition
    if resources.gpus:
        parameters["gpus_per_node"] = math.ceil(resources.gpus)
    if resources.memory_bytes is not None:
        parameters["mem_gb"] = math.ceil(resources.memory_bytes / 2**30)
    cluster.update_parameters(**parameters)
    return cluster


def parse(address: str) -> Address:
    """Read an address.

    Raises:
        UsageError: it is malformed.
    """
    head, *rest = address.split(",")
    words = rest if "=" not in head else [head, *rest]
    partition = head if "=" not in head and head else None
    if partition is not None and not _PARTITION.fullmatch(partition):
        raise UsageError(f"--executor slurm:{address}: {partition!r} is no partition")
    values: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS or key in values or not _VALUE.fullmatch(value):
            raise UsageError(
                f"--executor slurm:{address}: {word!r} is none of {', '.join(KEYS)} with =VALUE, "
                "each at most once: write slurm:PARTITION,time=60,qos=NAME"
            )
        values[key] = value
    cluster = values.get("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise UsageError(f"--executor slurm:{address}: cluster is slurm or local")
    local = cluster == "local"
    return Address(
        partition=partition,
        local=local,
        folder=Path(values.get("folder", "vqzoo-slurm")).absolute(),
        parallel=_number(values, "parallel", os.cpu_count() or 1 if local else 1000, address),
        minutes=_number(values, "time", 60, address),
        sbatch={key: values[key] for key in SBATCH if key in values},
    )


def _number(values: dict[str, str], key: str, default: int, address: str) -> int:
    text = values.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise UsageError(f"--executor slurm:{address}: {key} is a whole number above 0")
    return int(text)
