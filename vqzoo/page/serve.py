"""Serves the page to browsers on this machine."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vqzoo.errors import UsageError, VqzooError

_HOST = "127.0.0.1"


def page_server(make: Callable[[], str], port: int = 0) -> ThreadingHTTPServer:
    """A server of one page, bound to the loopback interface; `serve_forever` runs it.

    Other machines cannot reach it. Requests that name another host are refused, so that no site
    that points its name at this machine can read the page in a visitor's browser.

    Args:
        make: gives the page; called for each request, so that reloading shows new artifacts.
        port: the port; 0 for a free one. `server_port` of the result says which.

    Raises:
        UsageError: the port is taken, or not allowed.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts = {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}  # type: ignore[attr-defined]  # the server is an HTTPServer
            if self.headers.get("Host") not in hosts:
                self.send_error(403)
            elif self.path.partition("?")[0] != "/":
                self.send_error(404)
            else:
                self._send_page()

        def _send_page(self) -> None:
            try:
                status, kind, text = 200, "text/html", make()
            except VqzooError as error:  # a folder vanished, say
                status, kind, text = 500, "text/plain", f"{error}\n"
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Print nothing for a request."""

    try:
        return ThreadingHTTPServer((_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--port {port} cannot be used: {error}; leave it out") from None
