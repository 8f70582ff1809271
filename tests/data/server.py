"""A web server on this machine that behaves as well or as badly as a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """One file, and what goes wrong with the first requests for it.

    Attributes:
        faults: for each request in turn: an HTTP status, or after how many bytes to hang up.
    """

    body: bytes
    content_type: str = "application/zip"
    tells_length: bool = True
    faults: list[int | str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append(dict(self.headers))
        fault = site.faults.pop(0) if site.faults else None
        if isinstance(fault, int):
            return self._answer(fault, b"no")
        return self._answer(200, site.body, cut=int(fault.removeprefix("cut ")) if fault else None)

    def _answer(self, status: int, body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.site.content_type)
        if self.site.tells_length:
            self.send_header("Content-Length", str(len(body)))
        if cut is not None or not self.site.tells_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """A client that was killed is no news."""


@contextmanager
def serving(site: Site, name: str = "photos.zip") -> Iterator[Site]:
    """Serve a site on a free port; its `url` says where."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
