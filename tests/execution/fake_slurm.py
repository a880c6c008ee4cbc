#!/usr/bin/env python3
"""sbatch, srun, sacct and scancel for one machine; the name that it is called by says which.

Jobs are process groups, and FAKE_SLURM is a folder with the pid of each.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("FAKE_SLURM", ""))


def sbatch(script: str) -> None:
    """Start the script once for each index of the array, as Slurm does on its nodes."""
    text = Path(script).read_text()
    job = 1000 + len(list(FOLDER.glob("*.sh")))
    (FOLDER / f"{job}.sh").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    for index in range(int(array[1]) + 1) if array else [None]:
        name = str(job) if index is None else f"{job}_{index}"
        environment = {**os.environ, "SLURM_JOB_ID": str(job), "SLURM_NTASKS": "1"}
        if index is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": str(index)}
        process = subprocess.Popen(
            ["bash", script],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (FOLDER / name).write_text(str(process.pid))
    print(f"Submitted batch job {job}")


def srun(*words: str) -> None:
    """Become the command behind the options."""
    rest = list(words)
    while rest[0].startswith("--"):
        rest = rest[2:] if rest[0] in ("--output", "--error") else rest[1:]
    os.execvp(rest[0], rest)


def sacct(*_: str) -> None:
    """List every job and whether it runs."""
    print("JobID|State|NodeList")
    for path in FOLDER.iterdir():
        if path.suffix != ".sh":
            print(f"{path.name}|{'RUNNING' if runs(path.read_text()) else 'COMPLETED'}|here")


def runs(pid: str) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def scancel(job: str) -> None:
    """Kill a job."""
    os.killpg(int((FOLDER / job).read_text()), signal.SIGKILL)


if __name__ == "__main__":
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}
    commands[Path(sys.argv[0]).name](*sys.argv[1:])
