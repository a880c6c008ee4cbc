"""The exceptions that vqzoo raises; each message is one line that says what to do next.

    VqzooError               a run failed (exit code 1)
    ├── UsageError           the request makes no sense (exit code 2)
    ├── NothingCompressed    every layer stayed dense
    ├── ArtifactError        an artifact is damaged, inconsistent or unsupported
    └── PluginError          a plugin broke its contract

    VqzooWarning             the run goes on, but the user should know
    ├── CoverageWarning      less than half of a network's weights are compressed
    ├── PluginWarning        a plugin was left out
    ├── KernelCacheWarning   compiled kernels cannot be cached
    ├── ClassOrderWarning    labels depend on how class folders are sorted
    └── UnreadableImagesWarning  images are left out

One more exception belongs to the plugin contract and stands outside this tree:
`vqzoo.plugin.SkipLayer`, which a method raises to leave a layer dense.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydantic would slow `vqzoo --help`
    from pydantic import ValidationError


class VqzooError(Exception):
    """A run failed for a reason that the user can act on (exit code 1)."""


class UsageError(VqzooError):
    """The request makes no sense: an unknown name, an invalid option (exit code 2)."""


class NothingCompressed(VqzooError):
    """Every layer stayed dense; the message quotes the reason for the first one."""


class ArtifactError(VqzooError):
    """An artifact is damaged, inconsistent, or needs something that is not installed."""


class PluginError(VqzooError):
    """A plugin broke its contract; the message names it, and the layer if one is known."""


class VqzooWarning(UserWarning):
    """The run goes on, but the user should know; commands print it in one line."""


class CoverageWarning(VqzooWarning):
    """Less than half of a network's weights are compressed."""


class PluginWarning(VqzooWarning):
    """A plugin could not be used; the others still are."""


class KernelCacheWarning(VqzooWarning):
    """Compiled kernels cannot be cached on this machine, so every process compiles them."""


class ClassOrderWarning(VqzooWarning):
    """Class folders are numbered so that timm and torchvision sort them differently."""


class UnreadableImagesWarning(VqzooWarning):
    """Images that cannot be read are left out, as the user asked; the message names them."""


@dataclass(frozen=True)
class InvalidField:
    """The first problem that a pydantic `ValidationError` reports.

    Attributes:
        path: keys and indices that lead to the value, ("rules", 0, "ratio"); empty for the whole.
        value: the value that was refused.
        reason: what is wrong with it, beginning in lower case.
        unknown: whether the model has no such field.
    """

    path: tuple[int | str, ...]
    value: Any
    reason: str
    unknown: bool

    @property
    def name(self) -> str:
        """The path with dots, "rules.0.ratio"."""
        return ".".join(str(part) for part in self.path)


def invalid_field(error: "ValidationError") -> InvalidField:
    """Read the first problem out of a pydantic `ValidationError`."""
    problem = error.errors(include_url=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return InvalidField(
        problem["loc"], problem["input"], reason, problem["type"] == "extra_forbidden"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a clause about an unknown name: "; did you mean pq or rq?", or "." if none is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def one_line(error: BaseException) -> str:
    """The text of an error on one line of at most 300 characters; its type if it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def cause(error: BaseException) -> str:
    """The type of an error and its text, on one line: "KeyError: 'fit'"."""
    kind, text = type(error).__name__, one_line(error)
    return kind if text == kind else f"{kind}: {text}"
