"""From the engine's thread to the server's: the events of the answers to one HTTP request, in their order."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

from hippodrome.generate.engine import Closed, Engine, Full, Job
from hippodrome.generate.request import Ended, Event, Failed
from hippodrome.serve.errors import ApiError
from hippodrome.serve.translate import Prompt

STATUS = {"deadline": 504, "closing": 503, "invalid": 400, "internal": 500}
CODES = {
    "deadline": "deadline_exceeded",
    "closing": "closing",
    "invalid": "invalid_value",
    "internal": "internal_error",
}
PATIENCE = 60
"""Seconds that a client is told to wait at most."""


class Happened(NamedTuple):
    """An event of the answer to the prompt with this number."""

    prompt: int
    event: Event


class Listening:
    """Hands prompts to the engine and tells what comes of them; made where the server's loop runs.

    Args:
        engine: answers them.
        prompts: of one HTTP request.
        seconds: that an answer takes on average, for those who are sent away.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Prompt], seconds: float = 1.0) -> None:
        self.engine, self.prompts = engine, prompts
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Happened] = asyncio.Queue()
        self._jobs: list[Job] = []

    def start(self) -> None:
        """Hands all of them in, or none.

        Raises:
            ApiError: there is no room, the server is closing, or a request cannot be answered.
        """
        rows = sum(prompt.request.rows for prompt in self.prompts)
        most = self.engine.most_rows + self.engine.most_waiting
        if max(prompt.request.rows for prompt in self.prompts) > self.engine.most_rows or rows > most:
            raise ApiError(
                400,
                f"{rows} answers are asked for at once; this server writes {self.engine.most_rows} of a "
                f"prompt and has room for {most} in all. Ask for fewer.",
                param="n",
                code="invalid_value",
            )
        try:
            for number, prompt in enumerate(self.prompts):
                self._jobs.append(self.engine.submit(prompt.request, partial(self._put, number)))
        except Full as error:
            self.stop()
            raise self._later(str(error)) from None
        except Closed as error:
            self.stop()
            raise ApiError(503, str(error), code="closing", headers={"Retry-After": "5"}) from None
        except ValueError as error:
            self.stop()
            raise ApiError(400, str(error), code="invalid_value") from None

    def stop(self) -> None:
        """Nobody listens any more: the engine drops what is still open."""
        for job in self._jobs:
            job.cancel()

    async def events(self) -> AsyncIterator[Happened]:
        """What happens until all rows of all prompts have ended; leaving early drops what is open.

        Raises:
            ApiError: one of the prompts could not be answered.
        """
        left = sum(prompt.request.rows for prompt in self.prompts)
        try:
            while left:
                happened = await self._queue.get()
                if isinstance(happened.event, Failed):
                    kind = happened.event.kind
                    raise ApiError(STATUS[kind], happened.event.message, code=CODES[kind])
                left -= isinstance(happened.event, Ended)
                yield happened
        finally:
            self.stop()

    def _put(self, number: int, event: Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, Happened(number, event))
        except RuntimeError:
            # The loop has ended with the server: nobody is left to be told.
            self.stop()

    def _later(self, message: str) -> ApiError:
        """When there may be room: after as many answers as wait, at the pace of the last ones."""
        load = self.engine.load()
        turns = 1 + load.waiting / self.engine.most_rows
        seconds = min(PATIENCE, max(1, math.ceil(turns * self.seconds)))
        return ApiError(
            429,
            f"{message} Try again in {seconds} seconds.",
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )
