"""Folders in repositories of the Hub, where each change is a commit: many files become one."""

import inspect
import logging
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError, VqzooError, one_line

# Seconds before another attempt, give or take a half: others commit at the same time (409, 412), or
# the Hub is busy or limits requests (429, 5xx). Commits an hour are limited, too: that is not
# waited for.
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_AGAIN = {409, 412, 429, 500, 502, 503, 504}


def in_repository(fs: Any, path: str) -> bool:
    """Whether a path of fsspec's is in a repository of the Hub. Buckets of the Hub are none."""
    return type(fs).__name__ == "HfFileSystem" and not path.startswith("buckets/")


def check_repository(fs: Any, path: str) -> None:
    """Check that a repository exists and, if the client can ask, that the token may write it.

    Raises:
        UsageError: it does not exist, or the token cannot see it.
        VqzooError: the token is refused, or the Hub cannot be reached.
    """
    with hub_store_errors(path):
        repository = fs.resolve_path(path)
        check = _api(fs).auth_check
        if "write" in inspect.signature(check).parameters:  # of newer clients
            check(repository.repo_id, repo_type=repository.repo_type, write=True)


def commit_files(fs: Any, folder: str, files: Mapping[str, Path]) -> None:
    """Put files into a folder of a repository by one commit, in the place of any that are there.

    The commit goes on top of whatever the branch has by then: several processes may write, each
    its own files.

    Args:
        fs: huggingface_hub's HfFileSystem.
        folder: the folder's path in it.
        files: name in the folder -> local file.

    Raises:
        UsageError: the repository does not exist, or the token cannot see it.
        VqzooError: the token may not write, or the Hub refuses the commit, also when tried again.
    """
    from huggingface_hub import CommitOperationAdd

    with hub_store_errors(folder), _quiet_client():
        repository = fs.resolve_path(folder)
        inside = f"{repository.path_in_repo}/" if repository.path_in_repo else ""
        first, *others = files
        title = f"Add {first}" + (f" and {len(others)} more" if others else "")
        for wait in (*_WAITS, None):
            try:
                _api(fs).create_commit(
                    repository.repo_id,
                    [CommitOperationAdd(f"{inside}{name}", path) for name, path in files.items()],
                    repo_type=repository.repo_type,
                    revision=repository.revision,
                    commit_message=title,
                )
                return
            except OSError as error:
                if wait is None or response_status(error) not in _AGAIN:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.5))


@contextmanager
def hub_store_errors(path: str) -> Iterator[None]:
    """Turn what the client raises for a refusal into one line that says what to do."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RevisionNotFoundError,
    )

    try:
        yield
    except FileNotFoundError as error:
        if not isinstance(error.__cause__, HfHubHTTPError | HFValidationError):
            raise  # a file is missing, not a repository
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise UsageError(f"{path}: the repository has no such branch") from error
        repository = "/".join(path.split("/")[: 3 if path.startswith("datasets/") else 2])
        raise UsageError(
            f"there is no {repository} on the Hub, or your token cannot see it: `hf repos create` "
            "makes a repository"
        ) from error
    except OSError as error:
        text = one_line(error)
        match response_status(error):
            case 401:
                raise VqzooError(
                    f"the Hub rejects this token: run `hf auth login`, or set HF_TOKEN ({text})"
                ) from error
            case 403:
                raise VqzooError(f"your token may not do this ({text})") from error
            case 429:
                raise VqzooError(
                    "the Hub limits requests and commits: run the same command again later, with "
                    f"--retry-failed ({text})"
                ) from error
        raise


@contextmanager
def _quiet_client() -> Iterator[None]:
    """No progress bars, and no warnings of commits that would be empty."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger, bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def _api(fs: Any) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=fs.endpoint, token=fs.token, library_name="vqzoo")


def response_status(error: BaseException) -> int | None:
    """The HTTP status of the response that an exception of the client's comes from, if any."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
