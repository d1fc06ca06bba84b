"""Answers of the OpenAI protocol: their schema, and how they are put together from the engine's events."""

from typing import Any, Literal

from pydantic import BaseModel

from hippodrome.generate.request import Spelled
from hippodrome.serve.spelling import Spelling

Reason = Literal["stop", "length"]


class CachedTokens(BaseModel):
    """Of the prompt."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a request, of all its prompts and answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionLogprobs(BaseModel):
    """Log-probabilities as /v1/completions has them: lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason | None


class CompletionAnswer(BaseModel):
    """The answer of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Likely(BaseModel):
    """A token and its log-probability in nats, by the model's own distribution."""

    token: str
    logprob: float
    bytes: list[int] | None


class Placed(BaseModel):
    """The token at a place, and the likeliest ones there."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    """Log-probabilities as /v1/chat/completions has them."""

    content: list[Placed]


class ChatMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class ChatAnswer(BaseModel):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The answer of /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """The answer of /health."""

    status: Literal["ok", "closing"]


def usage(prompt: int, written: int, cached: int) -> dict[str, Any]:
    """The counts as the protocol has them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def completion_logprobs(tokens: list[Spelled], spelling: Spelling, shift: int = 0) -> dict[str, Any]:
    """Tokens with their log-probabilities as four lists; offsets count from ``shift`` characters on."""
    return {
        "tokens": [spelling.text(token.id) for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [
            None if token.logprob is None else {spelling.text(i): _finite(p) for i, p in token.top}
            for token in tokens
        ],
        "text_offset": [shift + token.offset for token in tokens],
    }


def chat_logprobs(tokens: list[Spelled], spelling: Spelling) -> dict[str, Any]:
    """Tokens with their log-probabilities, one after the other."""

    def likely(i: int, logprob: float | None) -> dict[str, Any]:
        written = spelling.written(i)
        return {"token": spelling.text(i), "logprob": _finite(logprob), "bytes": written and list(written)}

    return {
        "content": [
            {**likely(token.id, token.logprob), "top_logprobs": [likely(i, p) for i, p in token.top]}
            for token in tokens
        ]
    }


def _finite(logprob: float | None) -> float | None:
    """A chance of 0 as the protocol writes it."""
    return None if logprob is None else logprob if logprob > -9999.0 else -9999.0
