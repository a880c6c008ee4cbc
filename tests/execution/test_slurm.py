"""The engine `slurm`: on submitit's local executor, and on commands that look like Slurm's."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from fake_slurm import runs
from typer.testing import CliRunner

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app
from vqzoo.plugin import CallResources, WorkerLost
from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing import check_engine

pytest.importorskip("submitit")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

engine = installed_plugins().engines.get("slurm").item


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    check_engine(engine, f"cluster=local,parallel=2,folder={tmp_path}")


def test_a_job_that_is_requeued_makes_its_call_again(tmp_path: Path) -> None:
    """Slurm tells a job to go with SIGUSR2; submitit requeues it."""
    attempts = tmp_path / "attempts"
    program = (
        "import os, time\n"
        f"attempts = open({str(attempts)!r}, 'a+')\n"
        "attempts.write(f'{os.getpid()}\\n'); attempts.flush(); attempts.seek(0)\n"
        "if len(attempts.readlines()) == 1: time.sleep(600)\n"
    )
    jobs = tmp_path / "jobs"
    executor = engine.start(f"cluster=local,parallel=1,folder={jobs}", CallResources(cpus=1))
    call = executor.submit(exec, program)
    deadline = time.monotonic() + 300
    while not (attempts.exists() and attempts.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int(attempts.read_text()), signal.SIGUSR2)
    assert call.result(300) is None
    executor.shutdown()
    assert len(attempts.read_text().splitlines()) == 2
    assert list(jobs.iterdir()) == []  # nothing failed: no files are left


def test_a_lost_job_names_its_log(tmp_path: Path) -> None:
    executor = engine.start(f"cluster=local,parallel=1,folder={tmp_path}", CallResources(cpus=1))
    lost = executor.submit(exec, "import os, sys; print('help', file=sys.stderr); os._exit(3)")
    with pytest.raises(WorkerLost) as error:
        lost.result(300)
    executor.shutdown()
    log = Path(str(error.value).rpartition("its log is ")[2])
    assert "help" in log.read_text()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what was submitted, where sbatch and its like are on the path."""
    commands, jobs = tmp_path / "bin", tmp_path / "submitted"
    commands.mkdir()
    jobs.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        shutil.copy(Path(__file__).with_name("fake_slurm.py"), commands / name)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(jobs))
    return jobs


def test_calls_become_a_job_array_with_what_they_need(slurm: Path, tmp_path: Path) -> None:
    address = f"gpu,time=120,qos=high,parallel=50,folder={tmp_path}/files"
    needs = CallResources(cpus=2, gpus=0.5, memory_bytes=3 * 2**30)
    executor = engine.start(address, needs)
    calls = [executor.submit(pow, i, 2) for i in range(3)]
    assert [call.result(300) for call in calls] == [0, 1, 4]
    executor.shutdown()
    (script,) = slurm.glob("*.sh")
    options = set(script.read_text().splitlines())
    for option in (
        "array=0-2%3",
        "partition=gpu",
        "qos=high",
        "time=120",
        "cpus-per-task=2",
        "gpus-per-node=1",
        "mem=3GB",
    ):
        assert f"#SBATCH --{option}" in options
    assert list((tmp_path / "files").iterdir()) == []


def test_the_layers_of_one_run_are_jobs_of_one_array(slurm: Path, tmp_path: Path) -> None:
    run = ["run", "test_resnet", "--weights", "random", "-m", "svd", "--layers", "layer1*"]
    jobs = ["--executor", f"slurm:gpu,folder={tmp_path}/files"]
    for words in ([*run, "--out", str(tmp_path / "here")],
                  [*run, "--out", str(tmp_path / "there"), *jobs]):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    here, there = (tmp_path / name / WEIGHTS_FILE for name in ("here", "there"))
    assert there.read_bytes() == here.read_bytes()
    (script,) = slurm.glob("*.sh")
    assert "#SBATCH --array=0-1%2" in script.read_text()
    assert list((tmp_path / "files").iterdir()) == []


def test_ctrl_c_cancels_jobs(slurm: Path, tmp_path: Path) -> None:
    executor = engine.start(f"gpu,folder={tmp_path}/files", CallResources(cpus=1))
    path = tmp_path / "begun"
    endless = executor.submit(exec, f"open({str(path)!r}, 'x'); __import__('time').sleep(600)")
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    executor.shutdown(cancel_futures=True)
    assert isinstance(endless.exception(), WorkerLost)
    (job,) = [file for file in slurm.iterdir() if file.suffix != ".sh"]
    assert not runs(job.read_text())
