"""A call as bytes, and its answer: what travels between the driver and a worker."""

import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vqzoo.errors import cause


def pickle_call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """A call for `answer`.

    Raises:
        PicklingError, AttributeError, TypeError: the call does not pickle.
    """
    return pickle.dumps((fn, args, kwargs))


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
