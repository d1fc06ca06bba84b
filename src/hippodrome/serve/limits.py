"""What stands before every route: the key, the size of a body, and how long it may take to arrive."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from hippodrome.serve.errors import ApiError
from hippodrome.serve.settings import Settings

OPEN = ("/health",)
"""Paths that need no key: whoever asks whether the server lives learns nothing else."""


class Gate:
    """Lets a request through to the application if its key and its size are right.

    It speaks ASGI itself, so that a body is counted as it comes and never held twice.

    Args:
        app: what comes behind it.
        settings: the key and the sizes.
        count: is told the path and the status of every answer.
    """

    def __init__(self, app: Any, settings: Settings, count: Callable[[str, int], None]) -> None:
        self.app, self.settings, self.count = app, settings, count
        key = settings.api_key
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """A request, a lifespan, or anything else that the server hands on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.count(scope["path"], message["status"])
            await send(message)

        await self._answer(scope, receive, counted)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if not self._known(scope["path"], headers.get(b"authorization", b"")):
            refused = ApiError(
                401,
                "this server wants its key: send the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refused.response()(scope, receive, send)
            return
        try:
            body = await self._body(headers, receive)
        except ApiError as error:
            # What is still coming of the body nobody reads: the connection ends with the answer.
            error.headers["Connection"] = "close"
            await error.response()(scope, receive, send)
            return
        except ConnectionResetError:
            return
        told = False

        async def whole() -> Any:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, whole, send)

    def _known(self, path: str, shown: bytes) -> bool:
        if self._key is None or path in OPEN:
            return True
        word, _, key = shown.partition(b" ")
        # The comparison takes the same time however much of the key is right.
        return hmac.compare_digest(key.strip(), self._key) and word.lower() == b"bearer"

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes:
        """The whole body. Raises ApiError if it is too large or too slow, ConnectionResetError if it ends."""
        most = self.settings.body_bytes
        too_large = ApiError(
            413, f"a request has at most {most} bytes. Shorten the prompt.", code="request_too_large"
        )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError("the client went away")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(
                408, f"the request did not arrive within {self.settings.body_seconds:g} seconds."
            ) from None
