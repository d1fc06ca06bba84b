"""Answers that are sent as they come, and clients that go away before they have them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi.responses import Response

from hippodrome.serve.errors import ApiError, encode

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


async def gone(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Awaitable[T]) -> T | None:
    """What work comes to; None where the client went away before, which ends the work."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


class EventStream(Response):
    """Server-sent events, each a JSON value, and ``[DONE]`` at the end.

    The first event is waited for before anything is sent, so that what fails at once has a status of its own;
    what fails later is told as an event. A client that goes away ends the iterator.

    Args:
        chunks: the values to come.
        seconds: until a client that does not read what it is sent is left alone.
        stop: called at the end, whichever way it comes.
    """

    def __init__(self, chunks: AsyncIterator[Any], seconds: float, stop: Callable[[], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self.chunks, self.seconds, self.stop = chunks, seconds, stop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends them."""
        writing = asyncio.ensure_future(self._write(scope, receive, send))
        watching = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({writing, watching}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except OSError:
            # The client went away while it was written to.
            return
        finally:
            for task in (writing, watching):
                task.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)
            self.stop()

    async def _write(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def say(data: bytes, more: bool = True) -> None:
            nonlocal begun
            if not begun:
                begun = True
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
            await send({"type": "http.response.body", "body": data, "more_body": more})
            # Neither waiting events nor sending lets the loop go on by itself, which then would not notice
            # that the client has gone.
            await asyncio.sleep(0)

        try:
            async for chunk in self.chunks:
                await say(b"data: " + encode(chunk) + b"\n\n")
        except ApiError as error:
            if not begun:
                await error.response()(scope, receive, send)
                return
            await say(b"data: " + encode(error.body()) + b"\n\n")
        finally:
            close = getattr(self.chunks, "aclose", None)
            if close is not None:
                await close()
        await say(DONE, more=False)
