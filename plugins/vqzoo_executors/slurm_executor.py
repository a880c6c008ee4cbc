"""An executor whose calls are jobs of Slurm, which submitit submits."""

import atexit
import os
import pickle
import shutil
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import submitit

from vqzoo.errors import VqzooError, one_line
from vqzoo.plugin import WorkerLost
from vqzoo_executors.calls import CallExecutor, answer, settle
from vqzoo_executors.local_executor import THREAD_LIMITS

CANCELLATION = 60.0  # seconds within which Slurm ends a job that is cancelled


@dataclass
class Answer:
    """What a job runs. submitit requeues a job that is preempted or out of time if it can say how
    to go on: by making the same call again, which does only what is missing."""

    threads: int
    leaving: bool = False

    def __call__(self, call: bytes) -> bytes:
        """Run the call."""
        os.environ.update(dict.fromkeys(THREAD_LIMITS, str(self.threads)))  # before torch is loaded
        if (controller := os.environ.get("SUBMITIT_LOCAL_JOB_ID")) is not None:
            Thread(target=_end_with, args=(int(controller),), daemon=True).start()
        answered = answer(call, self.threads)
        if self.leaving:  # `answer` has caught the exit of submitit's signal handler
            returned, error = pickle.loads(answered)
            if not returned:
                raise error
        return answered

    def checkpoint(self, call: bytes) -> submitit.helpers.DelayedSubmission:
        """The call to make in the next attempt."""
        self.leaving = True
        return submitit.helpers.DelayedSubmission(Answer(self.threads), call)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: submitit's local jobs may leave it behind if they
    are cancelled while they start it. Slurm itself ends whole jobs."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


@dataclass
class _Running:
    job: Any
    ended: float | None = None  # when the job was first seen to have ended without an answer


@dataclass(frozen=True)
class Pace:
    """How fast a cluster is looked at.

    Attributes:
        most: calls submitted at a time.
        pause: seconds between two looks.
        latency: seconds until a file that a job wrote is seen here.
    """

    most: int
    pause: float
    latency: float


@dataclass
class SlurmExecutor(CallExecutor):
    """Runs calls as jobs.

    One thread submits the calls that have come in since its last look, as a job array, and
    completes the futures of jobs that have ended.

    Attributes:
        cluster: an executor of submitit with its parameters set.
        folder: the folder of the jobs' files, which is removed in the end unless a job failed.
        threads: what each call computes with.
        pace: how fast the cluster is looked at.
    """

    cluster: Any
    folder: Path
    threads: int
    pace: Pace
    _waiting: deque[tuple["Future[Any]", bytes]] = field(default_factory=deque)
    _running: dict["Future[Any]", _Running] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _closed: bool = False
    _cancelled: bool = False
    _failed: bool = False

    def __post_init__(self) -> None:
        self._thread = Thread(target=self._watch, name="vqzoo-slurm", daemon=True)
        self._thread.start()
        atexit.register(self.shutdown, cancel_futures=True)

    def _take(self, future: "Future[Any]", call: bytes) -> None:
        self._waiting.append((future, call))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Engine.start`."""
        atexit.unregister(self.shutdown)
        with self._lock:
            self._closed = True
            self._cancelled = self._cancelled or cancel_futures
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        while not self._cancelled:
            self._collect()
            calls, finished = self._next_calls()
            if calls:
                self._launch(calls)
            elif finished and not self._running:
                break
            else:
                time.sleep(self.pace.pause)
        self._cancel()
        if not self._failed:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _next_calls(self) -> tuple[list[tuple["Future[Any]", bytes]], bool]:
        """Calls to submit now, and whether none will come any more."""
        calls: list[tuple[Future[Any], bytes]] = []
        with self._lock:
            while self._waiting and len(self._running) + len(calls) < self.pace.most:
                future, call = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    calls.append((future, call))
            return calls, self._closed and not self._waiting

    def _launch(self, calls: list[tuple["Future[Any]", bytes]]) -> None:
        try:
            with self.cluster.batch():  # one array
                jobs = [self.cluster.submit(Answer(self.threads), call) for _, call in calls]
        except Exception as error:  # of sbatch, whatever it is
            self._failed = True
            for future, _ in calls:
                future.set_exception(VqzooError(f"sbatch refuses the job: {one_line(error)}"))
            return
        for (future, _), job in zip(calls, jobs, strict=True):
            self._running[future] = _Running(job)

    def _collect(self, *, cancelled: bool = False) -> None:
        """Complete the futures of jobs that have ended. Those of cancelled jobs have no answer to
        wait for, and Slurm is asked at once."""
        latency = min(self.pace.latency, 1.0) if cancelled else self.pace.latency
        for index, (future, running) in enumerate(list(self._running.items())):
            # One question is about all jobs.
            if not running.job.done(force_check=cancelled and index == 0):
                continue
            if running.job.paths.result_pickle.exists():
                self._settle(future, running.job)
            elif running.ended is None:
                running.ended = time.monotonic()
                continue
            elif time.monotonic() - running.ended < latency:
                continue
            else:
                self._failed = True
                future.set_exception(WorkerLost(_obituary(running.job)))
            del self._running[future]

    def _settle(self, future: "Future[Any]", job: Any) -> None:
        try:
            answered = job.result()
        except Exception as error:  # the job could not import vqzoo, or used up its requeues
            self._failed = True
            text = str(error).strip().splitlines() or [type(error).__name__]
            future.set_exception(VqzooError(f"job {job.job_id} failed: {one_line(error)}"))
            future.exception().add_note("\n".join(text))  # type: ignore[union-attr]
            return
        settle(future, answered)
        paths = job.paths
        for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr):
            path.unlink(missing_ok=True)

    def _cancel(self) -> None:
        """End everything, if the executor was told to."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, _ in waiting:
            future.cancel()
            future.set_running_or_notify_cancel()
        for running in self._running.values():
            running.job.cancel(check=False)
        deadline = time.monotonic() + CANCELLATION
        while self._running and time.monotonic() < deadline:
            self._collect(cancelled=True)
            time.sleep(self.pace.pause)
        for future, running in self._running.items():
            future.set_exception(WorkerLost(f"job {running.job.job_id} was cancelled"))
        self._running.clear()


def _obituary(job: Any) -> str:
    return (
        f"job {job.job_id} ended without an answer ({job.state}); it may have run out of memory or "
        f"time; its log is {job.paths.stderr}"
    )
