"""Requests of the OpenAI protocol, field by field with their bounds; what is not here is refused by name."""

from abc import ABC
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_ROWS = 128
"""Answers of one request."""
MOST_STOPS = 16
"""Stop strings of one request."""
TOP = 20
"""Likeliest tokens at each place."""

# Of many faults in a list the first is enough.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, fail_fast=True)]
ManyTokenIds = Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_ROWS, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_ROWS, fail_fast=True)]
Stop = Annotated[str, Field(min_length=1, max_length=1024)]
MOST_BIASES = 1024
"""Token ids with a bias of their own."""


def _few(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) > MOST_BIASES:
        raise ValueError(f"at most {MOST_BIASES} tokens have a bias; got {len(value)}.")
    return value


Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
    BeforeValidator(_few),
]


class _Strict(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """One unknown field is told: a fault for each of very many would take more memory than they do."""
        if isinstance(data, Mapping):
            names = {field.alias or name for name, field in cls.model_fields.items()}
            unknown = next((name for name in data if name not in names), None)
            if unknown is not None:
                raise ValueError(f"there is no field {unknown[:100]!r} here. Leave it out.")
        return data


class StreamOptions(_Strict):
    """What a stream tells besides the text."""

    include_usage: bool = Field(False, description="A last chunk with the counts of tokens.")
    include_obfuscation: bool | None = Field(None, description="Taken and ignored.")


class PlainText(_Strict):
    """Any text."""

    type: Literal["text"]


class JsonObject(_Strict):
    """Some JSON object."""

    type: Literal["json_object"]


class NamedSchema(_Strict):
    """A JSON schema with a name."""

    name: str = Field("schema", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="Taken and ignored: the schema always holds.")


class JsonSchema(_Strict):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class Pattern(_Strict):
    """Text that a regular expression matches as a whole: an extension of the protocol."""

    type: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=10000)


Format = Annotated[PlainText | JsonObject | JsonSchema | Pattern, Field(discriminator="type")]


class Asked(_Strict, ABC):
    """What both kinds of completion share."""

    model: str | None = Field(None, max_length=256, description="The name of the model that is served.")
    n: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = Field(None, description="Answers.")
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Biases | None = Field(
        None, description="Added to the logits of token ids, before the temperature."
    )
    response_format: Format | None = None
    top_k: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(None, description="An extension.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="An extension.")
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="An extension."
    )
    ignore_eos: bool | None = Field(None, description="An extension: go on after an end token.")
    user: str | None = Field(None, description="Taken and ignored.")

    def asked_stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Asked):
    """A text to go on with."""

    prompt: str | Texts | TokenIds | ManyTokenIds = Field(
        description="A text, texts, token ids, or lists of them; each is continued for itself."
    )
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="By default 16.")
    echo: bool | None = Field(None, description="Whether the prompt stands before its continuation.")
    logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = Field(None, description="Likeliest tokens told.")
    best_of: Annotated[int, Field(ge=1)] | None = Field(None, description="Not supported beyond n.")
    suffix: str | None = Field(None, description="Not supported.")

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            if data.get("suffix") not in (None, ""):
                raise ValueError("suffix is not supported: a causal model writes forwards. Leave it out.")
            if data.get("best_of") not in (None, 1, data.get("n")):
                raise ValueError("best_of is not supported. Ask for n answers and choose among them.")
        return data

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, whichever way they were written."""
        prompt: Any = self.prompt
        return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt


class TextPart(_Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = Field(None, max_length=256)
    refusal: str | None = None
    tool_call_id: str | None = None

    def plain(self) -> dict[str, str]:
        """As a chat template takes it."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": text, **named}


class ChatRequest(Asked):
    """A conversation to go on with."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="The newer name of max_tokens, and goes before it."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="Not supported.")
    tool_choice: Literal["none", "auto"] | None = Field(None, description="Tools are not supported.")
    parallel_tool_calls: bool | None = Field(None, description="Taken and ignored.")
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    metadata: dict[str, Any] | None = Field(None, description="Taken and ignored.")
    store: bool | None = Field(None, description="Taken and ignored: nothing is kept.")

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in ("tools", "functions", "function_call", "audio"):
                if data.get(name):
                    raise ValueError(f"{name} is not supported: answers are text alone. Leave it out.")
            if data.get("top_logprobs") is not None and not data.get("logprobs"):
                raise ValueError("top_logprobs is for answers with logprobs: set logprobs to true.")
        return data
