"""Events put together as the protocol has them: a whole answer, or the chunks of a stream."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hippodrome.generate.request import Ended, Event, Read, Spelled, Written
from hippodrome.serve.answers import chat_logprobs, completion_logprobs, usage
from hippodrome.serve.listening import Happened
from hippodrome.serve.protocol import ChatRequest, CompletionRequest
from hippodrome.serve.spelling import Spelling
from hippodrome.serve.translate import Prompt


class Form:
    """The form of the answers to one HTTP request.

    Choices are numbered through: all rows of the first prompt, then those of the next.

    Args:
        asked: the request.
        prompts: made of it.
        spelling: of the model's tokens.
        model: its name.
        number: of the answer, as clients see it.
    """

    def __init__(
        self,
        asked: CompletionRequest | ChatRequest,
        prompts: Sequence[Prompt],
        spelling: Spelling,
        model: str,
        number: str,
    ) -> None:
        self.asked, self.prompts, self.spelling, self.model = asked, prompts, spelling, model
        self.chat = isinstance(asked, ChatRequest)
        self.id = f"chatcmpl-{number}" if self.chat else f"cmpl-{number}"
        self.created = int(time.time())
        self.counts: dict[int, int] = defaultdict(int)
        self.cached = 0
        self._first = [0]
        for prompt in prompts:
            self._first.append(self._first[-1] + prompt.request.rows)
        self._echo = isinstance(asked, CompletionRequest) and bool(asked.echo)
        self._told = prompts[0].request.logprobs is not None

    @property
    def written(self) -> int:
        """Tokens written so far, of rows that have ended."""
        return sum(self.counts.values())

    @staticmethod
    def is_text(event: Event) -> bool:
        """Whether an event shows something."""
        return isinstance(event, Written) and bool(event.text)

    async def whole(self, events: AsyncIterator[Happened]) -> dict[str, Any]:
        """All of the answer, when it is there."""
        texts: dict[int, list[str]] = defaultdict(list)
        tokens: dict[int, list[Spelled]] = defaultdict(list)
        reasons: dict[int, str] = {}
        before: dict[int, tuple[Spelled, ...]] = {}
        async for number, event in events:
            first = self._first[number]
            if isinstance(event, Read):
                self.cached += event.cached
                before[number] = event.tokens
            elif isinstance(event, Written):
                texts[first + event.row].append(event.text)
                tokens[first + event.row] += event.tokens
            elif isinstance(event, Ended):
                self.counts[first + event.row] = event.tokens
                reasons[first + event.row] = event.reason
        found = []
        for number, prompt in enumerate(self.prompts):
            for index in range(self._first[number], self._first[number + 1]):
                text = "".join(texts[index])
                choice: dict[str, Any] = {"index": index}
                if self.chat:
                    choice["message"] = {"role": "assistant", "content": text}
                    choice["logprobs"] = chat_logprobs(tokens[index], self.spelling) if self._told else None
                else:
                    choice["text"] = prompt.text + text if self._echo else text
                    choice["logprobs"] = self._logprobs(prompt, before[number], tokens[index])
                found.append({**choice, "finish_reason": reasons[index]})
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": found, "usage": self._usage()}

    async def chunks(self, events: AsyncIterator[Happened]) -> AsyncIterator[dict[str, Any]]:
        """The answer piece by piece."""
        async for number, event in events:
            first, prompt = self._first[number], self.prompts[number]
            if isinstance(event, Read):
                self.cached += event.cached
                for index in range(first, first + prompt.request.rows):
                    if self.chat:
                        yield self._chunk(index, {"role": "assistant", "content": ""}, None)
                    elif self._echo:
                        yield self._chunk(index, prompt.text, self._logprobs(prompt, event.tokens, []))
            elif isinstance(event, Written):
                told = list(event.tokens)
                if self.chat:
                    logprobs = chat_logprobs(told, self.spelling) if self._told else None
                    yield self._chunk(first + event.row, {"content": event.text}, logprobs)
                else:
                    yield self._chunk(first + event.row, event.text, self._logprobs(prompt, (), told))
            elif isinstance(event, Ended):
                self.counts[first + event.row] = event.tokens
                yield self._chunk(first + event.row, {} if self.chat else "", None, event.reason)
        if self.asked.with_usage:
            yield {**self._stream_head(), "choices": [], "usage": self._usage()}

    def _logprobs(
        self, prompt: Prompt, before: tuple[Spelled, ...], tokens: list[Spelled]
    ) -> dict[str, Any] | None:
        """Those of a completion; with an echo the prompt's tokens come first and offsets count from it."""
        if not self._told:
            return None
        shift, offset = len(prompt.text) if self._echo else 0, 0
        placed = []
        for token in before:
            placed.append(token._replace(offset=offset - shift))
            offset = min(shift, offset + len(self.spelling.text(token.id)))
        return completion_logprobs([*placed, *tokens], self.spelling, shift)

    def _chunk(
        self, index: int, piece: Any, logprobs: dict[str, Any] | None, reason: str | None = None
    ) -> dict[str, Any]:
        shown = {"delta": piece} if self.chat else {"text": piece}
        choice = {"index": index, **shown, "logprobs": logprobs, "finish_reason": reason}
        counts = {"usage": None} if self.asked.with_usage else {}
        return {**self._stream_head(), "choices": [choice], **counts}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _stream_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.chat else "text_completion")

    def _usage(self) -> dict[str, Any]:
        read = sum(len(prompt.request.ids) for prompt in self.prompts)
        return usage(read, self.written, self.cached)
