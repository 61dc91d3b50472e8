"""Guard the server of the app: other web pages may not use it, and uploads are bounded."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_REQUEST = 20 * 2**20 + 2**16  # bytes of a request: an upload of 20 MB with its headers
MAX_UPLOADS, MAX_UPLOADED = 100, 200 * 2**20  # files and bytes that are kept; the oldest ones are deleted
AT_ONCE = 4  # uploads that are received at the same time; others wait
STALLED = 60.0  # seconds after which an unfinished upload that does not grow is deleted


class SameOrigin:
    """Refuse requests that another web page makes; its visitor, not its author, has the app on this machine.

    A browser says who asks, and a page cannot change that: in Sec-Fetch-Site, or in older browsers in Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with 403."""
        asks = scope["type"] in ("http", "websocket")
        if asks and not is_own_request(scope.get("method", "POST"), Headers(scope=scope)):
            answer = PlainTextResponse("another web page may not use this app; open the app at its own address", 403)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_own_request(method: str, headers: Headers) -> bool:
    """Return True for a request of the app's own page, of a program that is no browser, or that opens the page."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return True
    if site is not None:  # a link on another page may lead here
        return method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


class BoundedUploads:
    """Bound the size of a request, and delete the oldest uploads when all together are too many or too large.

    Args:
        app: The server.
        incoming: The folder of unfinished uploads.
    """

    def __init__(self, app: ASGIApp, incoming: Path) -> None:
        self.app, self.incoming = app, incoming
        self.kept = OrderedDict[Path, int]()  # the bytes of each upload, the oldest one first
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its size is known and small; remember where uploads are put."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            await PlainTextResponse("a request must give its size", 411)(scope, receive, send)
        elif len(length) > len(str(MAX_REQUEST)) or int(length) > MAX_REQUEST:
            await PlainTextResponse("a request is at most 20 MB", 413)(scope, receive, send)
        elif scope["path"].rstrip("/").endswith("/upload"):
            async with self.turns:
                await self.receive_upload(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def receive_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the server receive an upload, read in its answer which files it has made, and delete the oldest ones."""
        body = bytearray()

        async def listen(message: Message) -> None:
            body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.remember(bytes(body))  # before the answer ends: the bound holds when the user has it
                self.sweep()
            await send(message)

        try:
            await self.app(scope, receive, listen)
        finally:
            self.sweep()

    def remember(self, body: bytes) -> None:
        """Take in the answer to an upload: a list of paths, or words about what is wrong."""
        with suppress(ValueError, TypeError):
            paths: Any = json.loads(body)
            for path in [Path(path) for path in paths if isinstance(path, str)]:
                with suppress(OSError):
                    self.kept[path] = path.stat().st_size
                    self.kept.move_to_end(path)

    def sweep(self) -> None:
        """Delete the oldest uploads beyond the bounds, and unfinished uploads that have stalled."""
        while self.kept and (len(self.kept) > MAX_UPLOADS or sum(self.kept.values()) > MAX_UPLOADED):
            remove([self.kept.popitem(last=False)[0]])
        with suppress(OSError):
            before = time.time() - STALLED
            files = [path for path in self.incoming.iterdir() if path.is_file()]
            remove([path for path in files if path.stat().st_mtime < before])


def remove(paths: Iterable[Path]) -> None:
    """Delete files; one that is gone already is no error."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # Gradio makes a folder for each upload
