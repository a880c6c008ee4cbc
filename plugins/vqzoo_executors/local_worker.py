"""What a process of `local` does."""

import os
import signal
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from types import FrameType

from vqzoo.plugin.execution.quick_start import start_quickly
from vqzoo_executors.calls import answer


def work(connection: Connection, threads: int) -> None:
    """Answer calls, one after another, until the driver closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    Thread(target=_end_with_the_driver, daemon=True).start()
    start_quickly()
    try:
        while True:
            connection.send_bytes(answer(connection.recv_bytes(), threads))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """End the call as Ctrl-C would, so that it removes its temporary files."""
    raise KeyboardInterrupt


def _end_with_the_driver() -> None:
    """End this process when the driver's has ended, whatever it is doing."""
    driver = parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
