"""From a request of the protocol to requests of the engine: tokens, rules of choosing, constraints."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from hippodrome.generate import constraint
from hippodrome.generate.constraint import Constraint
from hippodrome.generate.request import Request
from hippodrome.generate.sampling import Sampler
from hippodrome.serve.errors import ApiError
from hippodrome.serve.protocol import (
    Asked,
    ChatRequest,
    CompletionRequest,
    JsonObject,
    JsonSchema,
    Pattern,
)
from hippodrome.serve.settings import Settings
from hippodrome.text.folder import encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hippodrome.text.folder import Words

COMPLETION_TOKENS = 16
"""New tokens of a completion where the request names no number, as the protocol says."""


class Served(NamedTuple):
    """What a server knows of its model besides the engine."""

    words: "Words"
    """How text is read, ended and laid out."""
    vocab_size: int
    """Token ids that the model knows."""

    @property
    def longest(self) -> int:
        """Letters of the longest token."""
        return _longest(self.words.tokenizer)


class Prompt(NamedTuple):
    """A prompt as the engine gets it, and as text where it is to be told again."""

    request: Request
    text: str


def completion(asked: CompletionRequest, served: Served, settings: Settings) -> list[Prompt]:
    """A request for each prompt.

    Raises:
        ApiError: something in it cannot be answered.
    """
    found = []
    rules = _constraint(asked, served)
    for prompt in asked.prompts():
        text = isinstance(prompt, str)
        ids = _ids(served, prompt, True, settings.context, "prompt") if isinstance(prompt, str) else prompt
        beyond = [i for i in ids if i >= served.vocab_size]
        if beyond:
            message = f"token ids are below {served.vocab_size}; the prompt has {beyond[0]}."
            raise ApiError(400, message, param="prompt", code="invalid_value")
        written = prompt if text else served.words.tokenizer.decode(ids, skip_special_tokens=False)
        request = Request(
            tuple(ids),
            _room(ids, asked.max_tokens, COMPLETION_TOKENS, settings, "prompt"),
            _sampler(asked, served),
            asked.n or 1,
            asked.seed,
            asked.asked_stops(),
            _ends(asked, served),
            asked.logprobs,
            bool(asked.echo) and asked.logprobs is not None,
            rules,
            settings.deadline,
        )
        found.append(Prompt(request, str(written)))
    return found


def chat(asked: ChatRequest, served: Served, settings: Settings) -> Prompt:
    """The request of a conversation, laid out by the model's chat template.

    Raises:
        ApiError: the model has no template, or something in it cannot be answered.
    """
    if served.words.template is None:
        raise ApiError(
            400,
            "this model has no chat template, so it knows no conversations: use /v1/completions.",
            param="messages",
            code="no_chat_template",
        )
    try:
        text = served.words.template.render([message.plain() for message in asked.messages])
    except ValueError as error:
        raise ApiError(400, str(error)[:1000], param="messages", code="invalid_value") from None
    ids = _ids(served, text, False, settings.context, "messages")
    told = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    request = Request(
        tuple(ids),
        _room(ids, told, settings.default_tokens, settings, "messages"),
        _sampler(asked, served),
        asked.n or 1,
        asked.seed,
        asked.asked_stops(),
        _ends(asked, served),
        top,
        False,
        _constraint(asked, served),
        settings.deadline,
        apart=True,
    )
    return Prompt(request, text)


@lru_cache(maxsize=8)
def _longest(tokenizer: "Tokenizer") -> int:
    return max(map(len, tokenizer.get_vocab()), default=1)


def check_model(name: str | None, settings: Settings) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name is not None and name != settings.name:
        raise ApiError(
            404,
            f"the model {name!r} is not served here; this one is: {settings.name}",
            param="model",
            code="model_not_found",
        )


def _ids(served: Served, text: str, special: bool, context: int, param: str) -> list[int]:
    # The tokens of a long text take a hundred times its memory: one that cannot fit is not read at all.
    if len(text) > context * served.longest:
        raise ApiError(
            400,
            f"this server takes {context} tokens, prompt and answer together; got {len(text)} letters, which "
            "are more. Shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )
    try:
        ids = encode(served.words, text, special=special)
    except Exception as error:  # the library raises its own errors as Exception
        words = " ".join(str(error).split())[:200]
        raise ApiError(400, f"the text cannot be read: {words}", code="invalid_value") from None
    return ids


def _room(ids: list[int], told: int | None, usual: int, settings: Settings, param: str) -> int:
    """New tokens at most: what was asked for, or the usual number as far as there is room."""
    left = settings.context - len(ids)
    if not ids:
        message = "the prompt has no token: give something to go on from."
        raise ApiError(400, message, param=param, code="invalid_value")
    if left < (1 if told is None else told):
        asked = "" if told is None else f" and {told} to come"
        raise ApiError(
            400,
            f"this server takes {settings.context} tokens, prompt and answer together; got {len(ids)} of the "
            f"prompt{asked}. Shorten the prompt or ask for fewer.",
            param=param,
            code="context_length_exceeded",
        )
    return min(usual, left) if told is None else told


def _sampler(asked: Asked, served: Served) -> Sampler:
    bias = {int(token): value for token, value in (asked.logit_bias or {}).items()}
    beyond = [token for token in bias if token >= served.vocab_size]
    if beyond:
        raise ApiError(
            400,
            f"logit_bias is for token ids below {served.vocab_size}; got {beyond[0]}.",
            param="logit_bias",
            code="invalid_value",
        )
    return Sampler(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        logit_bias=bias or None,
    )


def _ends(asked: Asked, served: Served) -> frozenset[int]:
    return frozenset() if asked.ignore_eos else frozenset(served.words.ends)


def _constraint(asked: Asked, served: Served) -> Constraint | None:
    wanted: Any = asked.response_format
    ends = _ends(asked, served)
    made: dict[type, Any] = {
        JsonObject: lambda: constraint.json_object(served.words.tokenizer, sorted(ends)),
        JsonSchema: lambda: constraint.json_schema(_schema(wanted), served.words.tokenizer, sorted(ends)),
        Pattern: lambda: constraint.regex(wanted.pattern, served.words.tokenizer, sorted(ends)),
    }
    if type(wanted) not in made:
        return None
    try:
        return made[type(wanted)]()
    except ValueError as error:
        raise ApiError(400, str(error)[:1000], param="response_format", code="invalid_value") from None


def _schema(wanted: JsonSchema) -> Mapping[str, Any]:
    return wanted.json_schema.schema_
