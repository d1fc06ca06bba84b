"""The server as a process: a socket, signals, and an end that finishes what is open or says so."""

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from hippodrome.serve.app import Service

STOPS = (signal.SIGTERM, signal.SIGINT)
SLACK = 5
"""Seconds for the last bytes to leave after the grace is over."""


def check_address(host: str, port: int) -> None:
    """Raises ValueError where nothing can listen at an address: better known before a model is read."""
    problems = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in found:
            try:
                socket.create_server(address[:2], family=family).close()
            except OSError as error:
                problems.append(error)
    except OSError as error:
        found, problems = [], [error]
    taken = [error for error in problems if error.errno == errno.EADDRINUSE]
    if taken or len(problems) >= max(1, len(found)):
        why = str((taken or problems)[0].strerror).split(" (")[0].lower()
        raise ValueError(f"nothing can listen at {host}, port {port}: {why}. Name another --port or --host")


class Process(uvicorn.Server):
    """Runs an application until it is told to stop, by a signal or ``stop``.

    From then on no request is taken in; those that are open have the grace of the settings to come to their
    end, and what is left then is told so. A second Ctrl-C ends it at once.

    Args:
        app: of ``create_app``.
        host: the address to listen at.
        port: 0 takes a free one.
        ready: is told the address once it listens.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, ready: Callable[[str], None] | None = None
    ) -> None:
        self.inside: Service = app.state.service
        grace = self.inside.settings.grace
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(grace) + SLACK,
                h11_max_incomplete_event_size=1 << 16,
            )
        )
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        """Listens, then tells where."""
        await super().startup(sockets)
        if self._ready is not None and self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def stop(self) -> None:
        """Ends the server from another thread."""
        self._end()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stop the server while it runs; the process lives on after it and ends as it would."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in STOPS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self._end()
        super().handle_exit(sig, frame)

    def _end(self) -> None:
        # The engine's end is waited for elsewhere: here the answers that are still open are sent.
        engine, grace = self.inside.engine, self.inside.settings.grace
        threading.Thread(target=engine.close, args=(grace,), name="hippodrome-end", daemon=True).start()
