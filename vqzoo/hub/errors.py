"""What the Hub's client raises, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vqzoo.errors import ArtifactError, UsageError, VqzooError, one_line

NO_TOKEN = "no token is known here: `hf auth login` stores one, or set HF_TOKEN"

# The client spoke through requests before 1.0, then through httpx, then httpx2.
_TRANSPORTS = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn the client's exceptions into a VqzooError about `repo`; others pass.

    Raises:
        UsageError: no such repository or revision, or a name that the Hub does not take.
        ArtifactError: the repository lacks a file that an artifact has.
        VqzooError: no connection, no permission, the Hub answered with an error.
    """
    try:
        yield
    except VqzooError:
        raise
    except Exception as error:
        told = _tell(error, repo)
        if told is None:
            raise
        raise told from error


def _tell(error: BaseException, repo: str) -> VqzooError | None:
    endpoint, status = constants.ENDPOINT, _status(error)
    if isinstance(error, HFValidationError):
        return UsageError(f"{repo!r:.200} is not a repository's name: write ORG/NAME")
    if isinstance(error, OfflineModeIsEnabled):
        return VqzooError(f"{repo}: HF_HUB_OFFLINE is set, and this needs the Hub")
    if isinstance(error, LocalEntryNotFoundError):
        return _tell_missing(error, repo)
    if isinstance(error, GatedRepoError):
        return VqzooError(f"{repo} is gated: accept its terms at {endpoint}/{repo}")
    if isinstance(error, RepositoryNotFoundError):
        return UsageError(
            f"there is no model {repo} on {endpoint}, or it is private and your token cannot see it"
        )
    if isinstance(error, RevisionNotFoundError):
        return UsageError(f"{repo} has no such revision")
    if isinstance(error, EntryNotFoundError):
        return ArtifactError(f"{repo} is not a whole artifact: {one_line(error)}")
    if isinstance(error, LocalTokenNotFoundError):
        return VqzooError(NO_TOKEN)
    if status is not None:
        return _tell_status(status, error, repo)
    if type(error).__module__.partition(".")[0] in _TRANSPORTS:
        return VqzooError(f"{endpoint} cannot be reached: {one_line(error)}")
    if error.__cause__ is not None and (told := _tell(error.__cause__, repo)) is not None:
        return told
    if "xet-write-token" in str(error) and "404" in str(error):
        return VqzooError(f"{endpoint} has no Xet storage: set HF_HUB_DISABLE_XET=1")
    if isinstance(error, RuntimeError | ValueError | OSError):
        return VqzooError(f"{repo}: {one_line(error)}")
    return None


def _tell_missing(error: BaseException, repo: str) -> VqzooError:
    """A file is neither in the cache nor to be had."""
    cause = error.__cause__
    if constants.HF_HUB_OFFLINE or isinstance(cause, OfflineModeIsEnabled):
        return VqzooError(f"{repo} is not in the cache, and HF_HUB_OFFLINE is set")
    if cause is not None and _status(cause) is not None:
        told = _tell(cause, repo)
        if told is not None:
            return told
    return VqzooError(f"{repo} is not in the cache, and {constants.ENDPOINT} cannot be reached")


def _tell_status(status: int, error: BaseException, repo: str) -> VqzooError:
    message = _server_message(error)
    if status == 401:
        return VqzooError(f"{constants.ENDPOINT} does not accept the token: {message}; {_RENEW}")
    if status == 403:
        return VqzooError(f"your token may not do this to {repo}: {message}")
    if status == 412:
        return VqzooError(f"{repo} has changed in the meantime: push again")
    return VqzooError(f"{constants.ENDPOINT} answered {status} about {repo}: {message}")


_RENEW = "`hf auth login` stores another, HF_TOKEN overrides it"


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _server_message(error: BaseException) -> str:
    told = getattr(error, "server_message", None)
    return " ".join(str(told).split())[:300] if told else one_line(error)
