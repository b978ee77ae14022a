"""The server behind the page: on the loopback only, behind a token, until the last tab is closed.

Whoever asks must know the address with its token, name this host and, over the socket, come from this very page. The
page asks by messages over one WebSocket; nothing it says is ever taken for a file's name.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import socket
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from convolve.errors import ConvolveError, DataError
from convolve.page import PORT
from convolve.page.assets import IMPORTS, TYPES, static
from convolve.page.message import Message
from convolve.page.session import Session
from convolve.page.subject import Subject
from convolve.page.upload import MOST_UPLOADED

HOST, PORTS = "127.0.0.1", 40
"""Where the page is served: on the first of so many ports that is free."""
GRACE = 3.0
"""Seconds that a closed tab may take to come back, as when a page is loaded anew."""
MOST_MESSAGE = MOST_UPLOADED + 65536
POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, and the one script within it, which says where they are."""
POLICY_CLOSED = 1008
"""The code that ends a socket which breaks the rules."""
UNSUPPORTED = 1003
"""The code for who speaks in text."""
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def _policy(page: bytes) -> str:
    [inner] = re.findall(IMPORTS.encode(), page, re.DOTALL)
    return POLICY.format(digest=b64encode(hashlib.sha256(inner).digest()).decode())


class Guard:
    """Lets through only who names this host; of sockets, only those that this page opens."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(POLICY_CLOSED)
        else:
            await Response("This page is for this computer alone.", 403, HEADERS)(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        found = [(name, value) for name, value in scope["headers"] if name in (b"host", b"origin")]
        hosts = [value for name, value in found if name == b"host"]
        origins = [value for name, value in found if name == b"origin"]
        if len(hosts) != 1 or hosts[0] not in self.hosts or any(origin not in self.origins for origin in origins):
            return False
        return scope["type"] != "websocket" or len(origins) == 1


class Visits:
    """How many tabs are open, and what is called some seconds after the last one was closed."""

    def __init__(self, done: Callable[[], None], grace: float) -> None:
        self.done, self.grace = done, grace
        self.count = 0
        self._ending: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Around the time that a tab is open."""
        if self._ending:
            self._ending.cancel()
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            if not self.count and self.grace < math.inf:
                self._ending = asyncio.get_running_loop().call_later(self.grace, self.done)


def application(
    subject: Subject, token: str, port: int, done: Callable[[], None] = lambda: None, grace: float = GRACE
) -> ASGIApp:
    """The page for a subject under /token/, as it is served on `port`; `done` is called when nobody looks any more."""
    files = static()
    headers = HEADERS | {"Content-Security-Policy": _policy(files["index.html"])}
    visits = Visits(done, grace)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        known = secrets.compare_digest(request.path_params["token"].encode(), token.encode())
        if not known or name not in files:
            return Response("There is no such page.", 404, headers)
        return Response(files[name], 200, headers, TYPES[name.rpartition(".")[2]])

    async def socket(visitor: WebSocket) -> None:
        if not secrets.compare_digest(visitor.path_params["token"].encode(), token.encode()):
            await visitor.close(POLICY_CLOSED)
            return
        await visitor.accept()
        session = Session(subject)
        async with visits.one():
            with suppress(WebSocketDisconnect):
                while (message := await visitor.receive())["type"] == "websocket.receive":
                    if message.get("bytes") is None:
                        await visitor.close(UNSUPPORTED)
                        break
                    await visitor.send_bytes(await run_in_threadpool(_answered, session, message["bytes"]))

    routes = [
        WebSocketRoute("/{token}/socket", socket),
        Route("/{token}/", file),
        Route("/{token}/{name}", file),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return Guard(app, port)


def _answered(session: Session, data: bytes) -> bytes:
    try:
        asked = Message.unpack(data)
    except DataError as error:
        return Message({"error": str(error)}).pack()
    return session.answer(asked).pack()


def bound(port: int) -> socket.socket:
    """A socket on the loopback: on this port, or on the next one that is free.

    Raises:
        ConvolveError: all of them are taken.
    """
    for number in range(port, min(port + PORTS, 1 << 16)):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, number))
            made.listen()  # only now the port is taken: two processes may bind it at once
        except OSError:
            made.close()
        else:
            return made
    raise ConvolveError(f"all ports from {port} to {port + PORTS - 1} are in use; end another page, or give --port")


class Serving:
    """The page of a subject on a port of its own."""

    def __init__(self, subject: Subject, port: int = PORT, grace: float = GRACE) -> None:
        """Take a port: this one, or the next that is free.

        Raises:
            ConvolveError: there is none.
        """
        self._subject = subject
        self._listener = bound(port)
        number, token = self._listener.getsockname()[1], secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{number}/{token}/"
        app = application(subject, token, number, self.end, grace)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="error",
                ws="websockets-sansio",
                ws_max_size=MOST_MESSAGE,
                ws_per_message_deflate=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    def end(self) -> None:
        """Let `run` come back."""
        self._server.should_exit = True

    def run(self, opened: Callable[[str], object]) -> None:
        """Serve until the last tab is closed, `end` is called or Ctrl-C is pressed.

        Args:
            opened: is given the address as soon as it answers.
        """
        threading.Thread(target=lambda: self._subject.first, daemon=True).start()  # while the browser starts
        with self._listener, suppress(KeyboardInterrupt):
            asyncio.run(self._run(opened))

    async def _run(self, opened: Callable[[str], object]) -> None:
        serving = asyncio.ensure_future(self._server.serve([self._listener]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        if self._server.started:
            await asyncio.to_thread(opened, self.address)
        await serving
