"""A call as bytes, and its answer: what travels between the driver and a worker."""

import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Any

from vqzoo.errors import cause


class CallExecutor(Executor, ABC):
    """Takes calls for `answer` until it is shut down. Subclasses set `_lock` and `_closed`."""

    _lock: Lock
    _closed: bool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """See `Executor.submit`.

        Raises:
            RuntimeError: the executor is shut down.
            PicklingError, AttributeError, TypeError: the call does not pickle.
        """
        call = pickle.dumps((fn, args, kwargs))
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is shut down")
            self._take(future, call)
        return future

    @abstractmethod
    def _take(self, future: "Future[Any]", call: bytes) -> None:
        """Take a call that `settle` will complete, under the lock."""


def answer(call: bytes, threads: int) -> bytes:
    """Run a call with this many threads: the pickle of (whether it returned, its result or error).

    Raises:
        KeyboardInterrupt: the driver ended the call.
    """
    from vqzoo.numerics.threads import use_threads  # torch: the worker needs it, the driver may not

    try:
        fn, args, kwargs = pickle.loads(call)
        with use_threads(threads):
            return pickle.dumps((True, fn(*args, **kwargs)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit is an answer, too
        error.add_note(traceback.format_exc())
        try:
            return pickle.dumps((False, error))
        except Exception:  # exceptions may hold anything
            return pickle.dumps((False, RuntimeError(cause(error))))


def settle(future: "Future[Any]", answered: bytes) -> None:
    """Complete a future, which must be running, with the outcome of `answer`."""
    try:
        returned, value = pickle.loads(answered)
    except Exception as error:  # a class of the worker that the driver does not have
        returned, value = False, error
    if returned:
        future.set_result(value)
    else:
        future.set_exception(value)
