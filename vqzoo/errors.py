"""What can go wrong, each with a message of one line that says what to do next."""


class VqzooError(Exception):
    """A run failed for a reason that the user can act on (exit code 1)."""


class UsageError(VqzooError):
    """What was asked makes no sense: an unknown name, a bad option (exit code 2)."""


class NothingCompressed(VqzooError):
    """Every layer stayed dense; the message has the first one's reason."""


class ArtifactError(VqzooError):
    """An artifact is damaged, lies, or needs what is not installed here."""


class PluginError(VqzooError):
    """A plugin broke its contract; the message names it, and the layer where that is known."""


def one_line(error: BaseException) -> str:
    """The text of an error on one line of bounded length; its type where it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def cause(error: BaseException) -> str:
    """What kind of error it is and its text, on one line: "KeyError: 'fit'"."""
    kind, text = type(error).__name__, one_line(error)
    return kind if text == kind else f"{kind}: {text}"
