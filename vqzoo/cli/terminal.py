"""What commands print: results on stdout, everything else on stderr."""

import functools
import inspect
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from vqzoo.errors import UsageError, VqzooError, VqzooWarning

P = ParamSpec("P")
R = TypeVar("R")

_PIPED_WIDTH = 120
_INTERRUPTED = "interrupted"
_RESUMES = "interrupted; run the same command again to resume"


def replace_what_cannot_be_encoded() -> None:
    """Print `?` for a character that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def stdout() -> Console:
    """The console for results; tables in a pipe are 120 columns wide unless COLUMNS is set."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def print_text(console: Console, text: str, *, markup: bool = False) -> None:
    """Print a paragraph: wrapped between words in a terminal, on one line anywhere else.

    What a script greps for, or a person pastes, so has no line breaks of ours.

    Args:
        console: where to print.
        text: without control characters; see `printable`.
        markup: whether the text contains rich's markup.
    """
    console.print(text, markup=markup, soft_wrap=not console.is_terminal)


def flowing(function: Callable[P, R]) -> Callable[P, R]:
    """Join the lines of each paragraph of a help text: terminals are not as wide as the source."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    function.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return function


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Report the errors of a command in one line each.

    The exit code is 2 where the request makes no sense, 1 where the run failed, 130 after Ctrl-C,
    143 after SIGTERM.
    """
    return _reporting(function, _INTERRUPTED)


def resumable_command(function: Callable[P, R]) -> Callable[P, R]:
    """`command` of what goes on where it was interrupted if it is run again, and says so."""
    return _reporting(function, _RESUMES)


def _reporting(function: Callable[P, R], interrupted: str) -> Callable[P, R]:
    @functools.wraps(flowing(function))
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings(), _termination_interrupts():
                warnings.showwarning = _one_line_warning  # type: ignore[assignment]
                return function(*args, **kwargs)
        except UsageError as error:
            raise _failed(str(error), 2) from None
        except VqzooError as error:
            raise _failed(str(error), 1) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            file = f" {error.filename}" if error.filename else ""
            raise _failed(f"{error.strerror or error}:{file}".rstrip(":"), 1) from None
        except _Terminated:
            raise _failed(interrupted, 128 + signal.SIGTERM) from None
        except KeyboardInterrupt:
            raise _failed(interrupted, 128 + signal.SIGINT) from None

    return wrapped


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived: a scheduler or a container stops the process."""


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _failed(text: str, code: int) -> typer.Exit:
    one_line = " ".join(printable(text).split())
    stderr().print(f"[bold red]error:[/] {escape(one_line)}", soft_wrap=True)
    return typer.Exit(code)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, VqzooWarning):
        text = escape(" ".join(printable(str(message)).split()))
        stderr().print(f"[yellow]warning:[/] {text}", soft_wrap=True)


def printable(text: str) -> str:
    """`text` without control characters: strings from an artifact reach no terminal raw."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
