"""A Hub on loopback for tests, which the real huggingface_hub client talks to.

    from vqzoo.testing.hub.server import Fault, HubServer

    with HubServer() as hub:
        subprocess.run(["vqzoo", "push", "my-artifact", "org/name"],
                       env={**os.environ, **hub.environment(tmp_path)})
        hub.faults.add(Fault("cut", "GET", "vqzoo.safetensors", after=1000))

The client reads its environment once, when it is imported. To use the client in the process of the
test, call `vqzoo.testing.hub.client.use_hub`.
"""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from vqzoo.testing.hub.api import answer
from vqzoo.testing.hub.faults import Fault, Faults, garbled
from vqzoo.testing.hub.messages import Request, Response
from vqzoo.testing.hub.state import HubState
from vqzoo.testing.hub.store import Account, Repo

__all__ = ["Account", "Exchange", "Fault", "HubServer"]

_PIECES = 10
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Exchange:
    """A request that was served.

    Attributes:
        method: GET, HEAD, PUT, POST or DELETE.
        target: path and query.
        status: HTTP status of the response; 0 if the connection was cut.
        received: bytes of the request's body that arrived.
    """

    method: str
    target: str
    status: int
    received: int


class HubServer:
    """A Hub that serves inside a `with` block. Its one user, "tester", belongs to the organization
    "org".

    Args:
        part_size: LFS files larger than this many bytes are uploaded in parts of this size.
        accounts: further accounts, by token.

    Attributes:
        url: the address, as HF_ENDPOINT takes it.
        token: a token of "tester" that may write to "tester" and "org".
        read_token: a token of "tester" that may only read.
        state: the accounts and repositories.
        faults: the faults to inject.
        exchanges: the requests that were served, in order.
    """

    token = "hf_loopback_write"
    read_token = "hf_loopback_read"

    def __init__(
        self, *, part_size: int = 5_000_000, accounts: dict[str, Account] | None = None
    ) -> None:
        self.faults = Faults()
        self.exchanges: list[Exchange] = []
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        own_accounts = {
            self.token: Account("tester", ("org",)),
            self.read_token: Account("tester", ("org",), write=False),
        }
        self.state = HubState(self.url, own_accounts | (accounts or {}), part_size)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def repos(self) -> dict[str, Repo]:
        """The repositories by id."""
        return self.state.repos

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a repository by path, without the .gitattributes that every new one has.

        Raises:
            KeyError: there is no such repository or revision.
        """
        commit = self.repos[repo].resolve(revision)
        if commit is None:
            raise KeyError(revision)
        return {p: f.data for p, f in commit.files.items() if p != ".gitattributes"}

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process that uses this Hub.

        Args:
            home: the folder for the client's cache.
            token: the token to use instead of `self.token`; "" for none.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token if token is None else token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], hub: HubServer) -> None:
        super().__init__(address, _Handler)
        self.hub = hub
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up."""


class _ConnectionCutError(ConnectionError):
    """The server cuts the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _serve(self) -> None:
        hub = self.server.hub
        fault = hub.faults.take(self.command, self.path)
        self._received = 0
        try:
            body = self._read_body(fault)
            headers = {name.lower(): value for name, value in self.headers.items()}
            if fault is not None and fault.kind == "error":
                text = b'{"error": "injected by the test"}'
                response = Response(fault.status, {"Content-Type": "application/json"}, text)
            else:
                response = answer(hub.state, Request(self.command, self.path, headers, body))
            self._record(0 if fault is not None and fault.kind == "cut" else response.status)
            self._send(response, fault)
        except _ConnectionCutError:
            self.close_connection = True

    def _record(self, status: int) -> None:
        """Record the exchange; call it before responding, so that a test sees it in time."""
        exchange = Exchange(self.command, self.path, status, self._received)
        self.server.hub.exchanges.append(exchange)

    def _read_body(self, fault: Fault | None) -> bytes:
        cut = fault is not None and fault.kind == "cut" and self.command in ("PUT", "POST")
        data = bytearray()
        for piece in self._pieces():
            data += piece
            self._received = len(data)
            if fault is not None and fault.kind == "slow" and self.command in ("PUT", "POST"):
                self.server.stopping.wait(fault.seconds / _PIECES)
            if fault is not None and cut and len(data) > fault.after:
                break
        if cut:
            self._record(0)
            raise _ConnectionCutError
        if fault is not None and fault.kind == "garble" and self.command in ("PUT", "POST"):
            return garbled(bytes(data), fault.after)
        return bytes(data)

    def _pieces(self) -> Any:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        remaining = int(self.headers.get("Content-Length") or 0)
        while remaining > 0:
            piece = self.rfile.read(min(remaining, _CHUNK))
            if not piece:
                raise _ConnectionCutError
            remaining -= len(piece)
            yield piece

    def _send(self, response: Response, fault: Fault | None) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value.replace("\n", " "))
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = response.body
        if fault is None or self.command != "GET" or fault.kind == "error":
            self.wfile.write(body)
        elif fault.kind == "cut":
            self.wfile.write(body[: fault.after])
            raise _ConnectionCutError
        elif fault.kind == "garble":
            self.wfile.write(garbled(body, fault.after))
        else:
            step = max(1, -(-len(body) // _PIECES))
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.server.stopping.wait(fault.seconds / _PIECES)

    def log_message(self, *_: object) -> None:
        """Log nothing: `exchanges` has every request."""
