"""Requests to the Hub on loopback, and its responses."""

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

_PAGE_SIZE = 100


@dataclass(frozen=True)
class Request:
    """A request whose body has been read.

    Attributes:
        method: GET, HEAD, PUT, POST or DELETE.
        target: path and query, still quoted.
        headers: by name in lower case.
        body: the bytes of the body.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, still quoted."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The values of the query by name."""
        return parse_qs(urlsplit(self.target).query)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Response:
    """A response; its length is that of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HubError(Exception):
    """A response that reports an error.

    Args:
        status: HTTP status.
        message: text for the user.
        code: the identifier by which clients tell errors apart, sent as `X-Error-Code`.
        headers: further headers.
    """

    def __init__(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        error_headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        response = json_response({"error": message}, status)
        self.response = Response(
            status, {**response.headers, **error_headers, **(headers or {})}, response.body
        )


def json_response(value: Any, status: int = 200) -> Response:
    """A response whose body is JSON."""
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def page_response(request: Request, url: str, items: list[Any]) -> Response:
    """The page of a list that `request` asks for, with a link to the next page.

    Args:
        request: its query may give `limit` and `cursor`.
        url: the Hub's address.
        items: the whole list.
    """
    start = int(request.query.get("cursor", ["0"])[0])
    size = min(_PAGE_SIZE, int(request.query.get("limit", [str(_PAGE_SIZE)])[0]))
    response = json_response(items[start : start + size])
    if start + size < len(items):
        target = re.sub(r"[?&]cursor=\d+", "", request.target)
        separator = "&" if "?" in target else "?"
        link = f"{url}{target}{separator}cursor={start + size}"
        response.headers["Link"] = f'<{link}>; rel="next"'
    return response
