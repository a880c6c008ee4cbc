"""Connections to a cluster of Ray, and an end of those that never come about."""

import logging
import os
from concurrent.futures import Future, wait
from threading import Thread

import ray

from vqzoo.errors import VqzooError, one_line


def connect(address: str) -> None:
    """Connect this process to a cluster.

    Args:
        address: what `ray.init` takes; empty where it has the choice.

    Raises:
        VqzooError: Ray does not connect, or start a cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address or None, include_dashboard=False, log_to_driver=False, logging_level="warning"
        )
    except Exception as error:  # Ray raises whatever its parts raise
        where = f"to {address}" if address else "or start"
        raise VqzooError(f"Ray does not connect {where}: {one_line(error)}") from error


def connect_within(seconds: float, address: str) -> None:
    """`connect`, and give up after some seconds.

    `ray.init` waits for ever for a server that has lost the client's process, even where it has
    failed and disconnects. Nothing can end it, so it gets a thread that no process waits for.

    Raises:
        VqzooError: Ray does not connect, or not in time.
    """
    log = logging.getLogger(ray.init.__module__)
    log.setLevel(logging.ERROR)  # else it warns that only main threads handle SIGTERM
    connected: Future[None] = Future()
    Thread(target=_try, args=(address, connected), name="vqzoo-ray-connect", daemon=True).start()
    try:
        wait([connected], seconds)
    finally:  # interrupted or not
        given_up = connected.cancel()
        log.setLevel(logging.NOTSET)
    if given_up:
        raise VqzooError(
            f"{address} has not let this client in within {seconds:g} s: its server for clients "
            "may have lost the process that it starts for each. Run the same command again, give "
            f"a busy head more time (ray:{address},connect=SECONDS), or submit a job"
        )
    connected.result()


def _try(address: str, connected: "Future[None]") -> None:
    """Connect, and say how it went; a connection that nobody waits for any more ends at once."""
    failure = None
    try:
        connect(address)
    except BaseException as error:
        failure = error
    if connected.set_running_or_notify_cancel():
        if failure is None:
            connected.set_result(None)
        else:
            connected.set_exception(failure)
    elif failure is None:
        ray.shutdown()
