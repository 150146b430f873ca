"""A small server on the loopback interface, for one person and one browser.

Whoever asks must know the token that is part of every address, and must have asked for this machine
by its own name: a page from elsewhere that lets its name point here is refused (DNS rebinding).
Requests name numbers, never files.
"""

import re
import secrets
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from foldnorm.pipeline.view.library import Library
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import to_json

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
PAGE, SCRIPT, VOLUME, PICTURE, JSON = (
    "text/html; charset=utf-8",
    "text/javascript; charset=utf-8",
    "application/octet-stream",
    "image/png",
    "application/json; charset=utf-8",
)
PNG_MAGIC = b"\x89PNG"
MAX_CONNECTIONS = 32  # at once; a browser opens six
NUMBER = re.compile("[0-9]{1,9}")
STATIC = {
    "": ("view.html", PAGE),
    "view.js": ("view.js", SCRIPT),
    "volumes.js": ("volumes.js", SCRIPT),
    "sulci.js": ("sulci.js", SCRIPT),
    "niivue.umd.js": ("niivue.umd.js", SCRIPT),
}
HEADERS = {
    # NiiVue reads its typeface and its volumes from the page's own memory.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Answer:
    """Answer to a request: HTTP status, media type, and content."""

    status: HTTPStatus
    kind: str
    content: bytes


class ViewServer(ThreadingHTTPServer):
    """Server of a library on loopback, until it is shut down.

    Args:
        library: what there is to see.
        port: to listen on; 0: any that is free.
    """

    daemon_threads = True

    def __init__(self, library: Library, port: int = 0) -> None:
        self.library = library
        self.token = secrets.token_urlsafe(24)
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it is closed."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    server_version, sys_version = "foldnorm", ""
    protocol_version = "HTTP/1.1"
    timeout = 15  # seconds that a connection may be idle

    def do_GET(self) -> None:
        """Answer a request, or say in one line why not."""
        try:
            answer = self._answer()
        except InputError as error:
            answer = _refusal(HTTPStatus.CONFLICT, str(error))
        except Exception as error:  # whatever is left is ours; the others go on
            traceback.print_exc()
            answer = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error: {error}")
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        if answer.status == HTTPStatus.BAD_REQUEST:
            self.send_header("Connection", "close")  # what follows is no request
        self.end_headers()
        self.wfile.write(answer.content)

    def _answer(self) -> Answer:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            return _refusal(HTTPStatus.BAD_REQUEST, "a request to read has no body")
        known = {f"{name}:{self.server.server_port}" for name in NAMES}
        if self.headers.get("Host") not in known:
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, "asked by another name")
        token, slash, rest = self.path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return _refusal(HTTPStatus.FORBIDDEN, "wrong token: use the address that was printed")
        if rest in STATIC:
            name, kind = STATIC[rest]
            content = (files("foldnorm.pipeline") / "static" / name).read_bytes()
            return Answer(HTTPStatus.OK, kind, content)
        word, *numbers = rest.split("/")
        found = _routes(self.server.library).get(word)
        if found is None or not all(map(NUMBER.fullmatch, numbers)):
            return _refusal(HTTPStatus.NOT_FOUND, "no such thing here")
        what, sizes = found
        places = [int(n) for n in numbers]
        if len(places) != len(sizes) or not _exist(places, sizes, self.server.library):
            return _refusal(HTTPStatus.NOT_FOUND, "no such thing here")
        content = what(*places)
        if isinstance(content, bytes):
            kind = PICTURE if content.startswith(PNG_MAGIC) else VOLUME
            return Answer(HTTPStatus.OK, kind, content)
        return Answer(HTTPStatus.OK, JSON, _json(content))

    def log_message(self, format: str, *words: Any) -> None:
        """Say nothing of each request."""


def _routes(library: Library) -> dict[str, tuple[Callable[..., Any], str]]:
    """Map each request to its function and its numbers: of cohort, brain, model, names, 0 or 1."""
    return {
        "contents": (library.contents, ""),
        "keys": (library.keys, "c"),
        "brain": (library.brain, "cb"),
        "volume": (library.volume, "cb"),
        "named": (library.named_volume, "cbs"),
        "departure": (library.departure, "cb"),
        "model": (library.model, "cm"),
        "source": (library.source, "cbm"),
        "made": (library.made, "cbm"),
        "difference": (library.difference, "cbm"),
        "neighbours": (library.neighbours, "cbm"),
        "picture": (library.picture, "cb"),
        "given": (library.given, "cbmd"),
        "repaired": (library.repaired, "cbmd"),
        "changed": (library.changed, "cbmd"),
        "figures": (library.figures, "cbmd"),
    }


def _exist(places: list[int], sizes: str, library: Library) -> bool:
    if "c" in sizes and places[0] >= len(library.cohorts):
        return False
    limits = {
        "c": len(library.cohorts),
        "b": len(library.cohorts[places[0]].rows) if "b" in sizes else 0,
        "m": len(library.runs),
        "s": len(library.sulci[places[0]]) if "s" in sizes else 0,
        "d": 2,
    }
    return all(place < limits[size] for place, size in zip(places, sizes, strict=True))


def _refusal(status: HTTPStatus, reason: str) -> Answer:
    return Answer(status, JSON, _json({"error": reason}))


def _json(content: Any) -> bytes:
    return to_json(content).encode(errors="backslashreplace")
