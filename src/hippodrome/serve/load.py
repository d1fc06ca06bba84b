"""Clients for a server that speaks the OpenAI protocol: how fast it answers many, and whether rightly.

They speak HTTP themselves, over plain sockets: a client can then vanish in the middle of an answer, read it
slowly, or send what is none. Every answer is asked for at temperature 0 and held against what the same prompt
got while nobody else asked.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

WORDS = (
    "the",
    "a",
    "river",
    "stone",
    "light",
    "under",
    "walks",
    "sings",
    "turns",
    "old",
    "new",
    "green",
    "of",
)
TIE = 1e-4
"""Two tokens whose log-probabilities are nearer than this may change places by rounding."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]


class Solo(NamedTuple):
    """What a prompt gets when nobody else asks."""

    prompt: str
    text: str
    offsets: list[int]
    """Where each token begins in the text."""
    margins: list[float]
    """How far the likeliest token was ahead of the next one, in nats."""


class Tally(NamedTuple):
    """What came of some time under load."""

    clients: int
    seconds: float
    answers: int
    tokens: int
    first: list[float]
    """Seconds from each request to the first text of its answer, in order of size."""
    whole: list[float]
    """Seconds from each request to the end of its answer, in order of size."""
    happened: Counter[str]
    """What else there was, by name."""
    wrong: list[str]
    """Answers that are not what they were alone, and answers that were lost."""
    memory: list[int]
    """Bytes the server held, at even times, where it tells."""


class Target:
    """A server to ask.

    Args:
        address: of the server, such as http://127.0.0.1:8000.
        key: that it wants; None for none.

    Raises:
        ValueError: an address that is none of plain HTTP.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the address of a server is http://HOST:PORT; got {address!r}")
        self.host, self.port = parts.hostname, parts.port or 80
        self.key = key

    def head(self, method: str, path: str, length: int) -> bytes:
        """The head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        if self.key is not None:
            lines.append(f"Authorization: Bearer {self.key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    @asynccontextmanager
    async def opened(self, path: str, body: bytes) -> AsyncIterator[asyncio.StreamReader]:
        """A request that was sent; the connection is gone afterwards, however much was read."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.head("POST" if body else "GET", path, len(body)) + body)
            await writer.drain()
            yield reader
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def ask(self, path: str, value: Any = None, raw: bytes | None = None) -> Answer:
        """The whole answer to a request."""
        body = raw if raw is not None else b"" if value is None else json.dumps(value).encode()
        async with self.opened(path, body) as reader:
            status, headers = await head_of(reader)
            return Answer(status, b"".join([piece async for piece in pieces(reader, headers)]), headers)


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer. Raises ConnectionError where it ends before."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines[1:] if ":" in line)
    return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, value in pairs}


async def pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body of an answer as it comes. Raises IncompleteReadError where it ends too early."""
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", 0)))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def events(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[Any]:
    """The values of a stream. Raises ConnectionError if it does not come to its end."""
    held = b""
    async for piece in pieces(reader, headers):
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    raise ConnectionError("a stream ended before it said so")


def prompts_of(count: int, words: int, seed: int = 0) -> list[str]:
    """Prompts of so many words, none like another."""
    chance = random.Random(seed)
    return [f"{i} " + " ".join(chance.choices(WORDS, k=words)) for i in range(count)]


async def solos(target: Target, texts: list[str], tokens: int) -> list[Solo]:
    """What each prompt gets alone.

    Raises:
        ValueError: the server did not answer.
    """
    found = []
    for text in texts:
        asked = {"prompt": text, "max_tokens": tokens, "temperature": 0, "logprobs": 2}
        try:
            answer = await target.ask("/v1/completions", asked)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ValueError(f"no server answers at {target.host}:{target.port} ({error})") from None
        if answer.status != 200:
            raise ValueError(f"the server answered {answer.status}: {answer.body[:300].decode()}")
        choice = json.loads(answer.body)["choices"][0]
        told = choice["logprobs"]
        tops = [sorted(top.values(), reverse=True) for top in told["top_logprobs"]]
        margins = [top[0] - top[1] if len(top) > 1 else 0.0 for top in tops]
        found.append(Solo(text, choice["text"], told["text_offset"], margins))
    return found


def judge(solo: Solo, text: str) -> str:
    """Whether an answer is what the prompt got alone: "equal", "different", or a "tie" by rounding."""
    if text == solo.text:
        return "equal"
    at = next((i for i, (a, b) in enumerate(zip(text, solo.text, strict=False)) if a != b), None)
    at = min(len(text), len(solo.text)) if at is None else at
    tokens = [i for i, offset in enumerate(solo.offsets) if offset <= at]
    # A character may be written by several tokens, any of which may have been the one.
    begun = solo.offsets[tokens[-1]] if tokens else 0
    near = [m for o, m in zip(solo.offsets, solo.margins, strict=True) if begun <= o <= at]
    return "tie" if near and min(near) < TIE else "different"


class Load:
    """Clients that ask for a while.

    Args:
        target: the server.
        known: prompts and what they get alone.
        tokens: of an answer.
        rough: whether some clients vanish, read slowly, or send what is none.
        seed: of what they choose.
    """

    def __init__(
        self, target: Target, known: list[Solo], tokens: int, rough: bool = False, seed: int = 0
    ) -> None:
        self.target, self.known, self.tokens, self.rough = target, known, tokens, rough
        self.chance = random.Random(seed)
        self.first: list[float] = []
        self.whole: list[float] = []
        self.written = 0
        self.happened: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[int] = []

    async def run(self, clients: int, seconds: float) -> Tally:
        """Lets so many clients ask, one request after the other each, for so long."""
        begun = time.monotonic()
        until = begun + seconds
        watching = asyncio.create_task(self._watch(seconds / 20))
        await asyncio.gather(*(self._client(until) for _ in range(clients)))
        taken = time.monotonic() - begun
        watching.cancel()
        return Tally(
            clients, taken, len(self.whole), self.written, sorted(self.first), sorted(self.whole),
            self.happened, self.wrong, self.memory,
        )  # fmt: skip

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            kind = self.chance.random() if self.rough else 1.0
            try:
                if kind < 0.05:
                    await self._malformed()
                elif kind < 0.08:
                    await self._oversize()
                else:
                    await self._answer(vanish=kind < 0.2, slow=0.2 <= kind < 0.25)
            except (OSError, asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
                self.wrong.append(f"lost: {type(error).__name__}: {error}")

    async def _answer(self, vanish: bool, slow: bool) -> None:
        solo = self.chance.choice(self.known)
        stream = vanish or slow or not self.rough or self.chance.random() < 0.6
        asked = {"prompt": solo.prompt, "max_tokens": self.tokens, "temperature": 0, "stream": stream}
        if stream:
            asked["stream_options"] = {"include_usage": True}
        begun, text, first, usage, leave = (
            time.monotonic(),
            "",
            None,
            None,
            self.chance.randrange(self.tokens),
        )
        async with self.target.opened("/v1/completions", json.dumps(asked).encode()) as reader:
            if vanish and leave == 0:
                self.happened["vanished before an answer"] += 1
                return
            status, headers = await head_of(reader)
            if status == 429:
                self.happened["sent away with 429"] += 1
                await asyncio.sleep(min(2.0, float(headers["retry-after"])))
                return
            if status != 200:
                self.wrong.append(f"status {status}")
                return
            if not stream:
                answer = json.loads(b"".join([piece async for piece in pieces(reader, headers)]))
                text, usage = answer["choices"][0]["text"], answer["usage"]
            else:
                count = 0
                async for event in events(reader, headers):
                    if "error" in event:
                        raise ConnectionError(event["error"]["message"])
                    usage = event.get("usage") or usage
                    for choice in event["choices"]:
                        text += choice["text"]
                        first = time.monotonic() if first is None and choice["text"] else first
                    count += 1
                    if vanish and count >= leave:
                        self.happened["vanished in an answer"] += 1
                        return
                    if slow:
                        await asyncio.sleep(0.05)
        if slow:
            self.happened["read slowly"] += 1
        else:
            self.whole.append(time.monotonic() - begun)
            if first is not None:
                self.first.append(first - begun)
        self.written += usage["completion_tokens"] if usage else 0
        verdict = judge(solo, text)
        self.happened[f"answer {verdict}"] += 1
        if verdict == "different" or usage is None:
            self.wrong.append(f"{solo.prompt[:20]!r}: {text[:60]!r} in the place of {solo.text[:60]!r}")

    async def _malformed(self) -> None:
        raw = self.chance.choice([b"{", b"[]", b"\xff\x00", b'{"prompt": 7}', b'{"prompt": "a", "x": 1}'])
        await self._refused(raw, "malformed", (400,))

    async def _oversize(self) -> None:
        raw = json.dumps({"prompt": "long " * self.chance.choice([200_000, 2_000_000])}).encode()
        await self._refused(raw, "oversize", (400, 413))

    async def _refused(self, raw: bytes, what: str, statuses: tuple[int, ...]) -> None:
        try:
            answer = await self.target.ask("/v1/completions", raw=raw)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The server may hang up on a body that it will not read while it is still being sent.
            self.happened[f"{what}, hung up on"] += 1
            return
        self.happened[f"{what}, refused"] += 1
        if answer.status not in statuses:
            self.wrong.append(f"{what}: status {answer.status}")

    async def _watch(self, pause: float) -> None:
        """The server's memory, where it tells it."""
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                told = (await self.target.ask("/metrics")).body.decode()
                for line in told.splitlines():
                    if line.startswith("process_resident_memory_bytes "):
                        self.memory.append(int(float(line.split(" ")[1])))
            await asyncio.sleep(pause)


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of ordered values lies; NaN of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")
