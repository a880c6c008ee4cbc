"""What a process of `local` does."""

import os
import signal
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from types import FrameType
from typing import Any

from vqzoo.errors import cause
from vqzoo.numerics.threads import use_threads


def work(connection: Connection, threads: int) -> None:
    """Answer calls, one after another, until the driver closes the connection.

    A call is the pickle of (function, arguments, keywords); an answer that of (True, what it
    returned) or (False, what it raised).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    Thread(target=_end_with_the_driver, daemon=True).start()
    try:
        with use_threads(threads):
            while True:
                connection.send_bytes(_answer(connection.recv_bytes()))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _answer(call: bytes) -> bytes:
    try:
        function, arguments, keywords = ForkingPickler.loads(call)
        answer: tuple[bool, Any] = (True, function(*arguments, **keywords))
        return bytes(ForkingPickler.dumps(answer))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        error.add_note(traceback.format_exc())
        try:
            return bytes(ForkingPickler.dumps((False, error)))
        except Exception:  # exceptions may hold anything
            return bytes(ForkingPickler.dumps((False, RuntimeError(cause(error)))))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """End the call as Ctrl-C would, so that it removes its temporary files."""
    raise KeyboardInterrupt


def _end_with_the_driver() -> None:
    """End this process when the driver's has ended, whatever it is doing."""
    driver = parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
