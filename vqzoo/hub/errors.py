"""Translate the exceptions of huggingface_hub into errors of one line."""

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
from vqzoo.storage.hub_commits import response_status

NO_TOKEN = "no token is stored here: run `hf auth login`, or set HF_TOKEN"
_NEW_TOKEN = "run `hf auth login` to store another, or set HF_TOKEN"

# The client used requests before version 1.0; since then it uses httpx, or httpx2.
_TRANSPORTS = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn the client's exceptions inside the block into a VqzooError; others pass.

    Args:
        repo: what the block works on, for the message: "org/name".

    Raises:
        UsageError: the repository or revision does not exist, or its name is invalid.
        ArtifactError: the repository lacks a file that every artifact has.
        VqzooError: there is no connection or no permission, or the Hub reports an error.
    """
    try:
        yield
    except VqzooError:
        raise
    except Exception as error:
        translated = _translate(error, repo)
        if translated is None:
            raise
        raise translated from error


def _translate(error: BaseException, repo: str) -> VqzooError | None:
    endpoint, status = constants.ENDPOINT, response_status(error)
    if isinstance(error, HFValidationError):
        return invalid_name(repo)
    if isinstance(error, OfflineModeIsEnabled):
        return VqzooError(f"{repo} can only be reached through the Hub, but HF_HUB_OFFLINE is set")
    if isinstance(error, LocalEntryNotFoundError):
        return _translate_missing_entry(error, repo)
    if isinstance(error, GatedRepoError):
        return VqzooError(f"{repo} is gated: accept its terms at {endpoint}/{repo}")
    if isinstance(error, RepositoryNotFoundError):
        return UsageError(
            f"there is no model {repo} on {endpoint}, or it is private and your token cannot see it"
        )
    if isinstance(error, RevisionNotFoundError):
        return UsageError(f"{repo} has no such revision")
    if isinstance(error, EntryNotFoundError):
        return ArtifactError(f"{repo} is not a complete artifact: {one_line(error)}")
    if isinstance(error, LocalTokenNotFoundError):
        return VqzooError(NO_TOKEN)
    if status is not None:
        return _translate_status(status, error, repo)
    if type(error).__module__.partition(".")[0] in _TRANSPORTS:
        return VqzooError(f"{endpoint} cannot be reached: {one_line(error)}")
    if error.__cause__ is not None and (inner := _translate(error.__cause__, repo)) is not None:
        return inner
    if "xet-write-token" in str(error) and "404" in str(error):
        return VqzooError(f"{endpoint} has no Xet storage: set HF_HUB_DISABLE_XET=1")
    if isinstance(error, RuntimeError | ValueError | OSError):
        return VqzooError(f"{repo}: {one_line(error)}")
    return None


def invalid_name(repo: str, pattern: str = "ORG/NAME") -> UsageError:
    """The error for a text that cannot be the name of a repository."""
    return UsageError(f"{repo!r:.200} is not the name of a repository: write {pattern}")


def _translate_missing_entry(error: BaseException, repo: str) -> VqzooError:
    """The file is not in the cache, and cannot be downloaded."""
    cause = error.__cause__
    if constants.HF_HUB_OFFLINE or isinstance(cause, OfflineModeIsEnabled):
        return VqzooError(f"{repo} is not in the cache, and HF_HUB_OFFLINE is set")
    if cause is not None and response_status(cause) is not None:
        translated = _translate(cause, repo)
        if translated is not None:
            return translated
    return VqzooError(f"{repo} is not in the cache, and {constants.ENDPOINT} cannot be reached")


def _translate_status(status: int, error: BaseException, repo: str) -> VqzooError:
    endpoint, message = constants.ENDPOINT, _server_message(error)
    if status == 401:
        return VqzooError(f"{endpoint} does not accept the token: {message}; {_NEW_TOKEN}")
    if status == 403:
        return VqzooError(f"your token may not do this to {repo}: {message}")
    if status == 412:
        return VqzooError(f"{repo} has changed in the meantime: push again")
    return VqzooError(f"{endpoint} responded with status {status} for {repo}: {message}")


def _server_message(error: BaseException) -> str:
    message = getattr(error, "server_message", None)
    return " ".join(str(message).split())[:300] if message else one_line(error)
