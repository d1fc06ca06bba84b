"""Chat templates: messages to the text a model was trained to read, in a sandbox that ends."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
from jinja2 import sandbox

from hippodrome.text._sandbox import CLOSE, OPEN, RefusedError, budget, environment, fits, marks

_FAULTS = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError),
)


class Template:
    """A chat template: Jinja as it is written for checkpoints on the Hugging Face hub.

    It is text from a stranger, so it runs in Jinja's sandbox: it reads its arguments and nothing else, a
    rendering ends after ``STEPS`` turns of loops, calls and filters, no text in it grows beyond ``LETTERS``,
    and all that it makes on its way stays within ``MADE``.
    Beside what Jinja has, a template may use ``raise_exception``, ``strftime_now``, a ``tojson`` that
    writes plain JSON, ``break`` and ``continue`` in loops, and ``{% generation %}``.

    Args:
        source: the template. It is compiled when it is first used.
        special: special tokens by the names that templates know: ``bos_token``, ``eos_token`` and so on.
    """

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        self.source, self.special = source, dict(special)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
    ) -> str:
        """The messages as one text, special tokens spelt out.

        Args:
            messages: plain JSON, such as ``{"role": "user", "content": "Hello"}``. What is None in a message
                is left out of it: templates ask whether a thing is there.
            add_generation_prompt: whether the text ends with what begins an answer of the assistant.
            tools: JSON schemas of functions that the model may ask to be called.

        Raises:
            ValueError: messages that are no plain JSON or that the template refuses, and a template that is
                no Jinja, reaches for what it may not, or does not end.
        """
        given = [{k: v for k, v in message.items() if v is not None} for message in messages]
        return self._rendered(_plain(given, "messages"), _plain(tools, "tools"), add_generation_prompt)

    def said(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]]:
        """The messages as one text, and where in it the assistant speaks: (start, end) in letters.

        That is what ``{% generation %}`` encloses where a template has that tag. Where it has none, it is
        what each message of the assistant adds to the text that asks for it, the end of the turn included.

        What a template puts in front of an answer only where it asks for one, an opened thought say, is no
        part of it.

        Raises:
            ValueError: as ``render``; and where a template without the tag writes earlier messages otherwise
                once later ones are there, which leaves no such places.
        """
        if "endgeneration" in self.source:
            return self._tagged(messages, tools)
        whole = self.render(messages, add_generation_prompt=False, tools=tools)
        places: list[tuple[int, int]] = []
        for number, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before = self.render(messages[:number], add_generation_prompt=False, tools=tools)
            answered = self.render(messages[: number + 1], add_generation_prompt=False, tools=tools)
            asked = self.render(messages[:number], tools=tools)
            both = zip(asked, answered, strict=False)
            start = next((i for i, (a, b) in enumerate(both) if a != b), min(len(asked), len(answered)))
            if not (answered.startswith(before) and len(before) <= start and whole.startswith(answered)):
                raise ValueError(
                    f"the chat template writes what comes before message {number + 1} otherwise once that "
                    "or a later message is there, so what the assistant says has no place of its own in the "
                    "text. Train on all tokens, on shorter conversations, or put {% generation %} and "
                    "{% endgeneration %} around the assistant's words in the template."
                )
            places.append((start, len(answered)))
        return whole, places

    def _tagged(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> tuple[str, list[tuple[int, int]]]:
        plain = json.dumps([list(messages), tools], ensure_ascii=False)
        if OPEN in plain or CLOSE in plain:
            raise ValueError(
                "messages hold U+F0000 or U+F0001, by which the assistant's words are marked. Remove them."
            )
        token = marks.set((OPEN, CLOSE))
        try:
            marked = self.render(messages, add_generation_prompt=False, tools=tools)
        finally:
            marks.reset(token)
        text, places = "", []
        for piece in marked.split(OPEN):
            words, closed, rest = piece.partition(CLOSE)
            if closed:
                places.append((len(text), len(text) + len(words)))
            text += words + rest
        return text, places

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return environment().from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(
                f"the chat template is no Jinja that can be read: line {error.lineno}: {error.message}. Take "
                "the template from where the checkpoint comes from, or correct it."
            ) from None
        except (RecursionError, MemoryError, OverflowError):
            raise ValueError(
                "the chat template is too deep to be read. Take the one that came with the checkpoint."
            ) from None

    def _rendered(self, messages: Any, tools: Any, add_generation_prompt: bool) -> str:
        compiled = self._compiled
        given = {"messages": messages, "tools": tools, "documents": None}
        try:
            pieces, size = [], 0
            with budget():
                for piece in compiled.generate(
                    self.special, **given, add_generation_prompt=add_generation_prompt
                ):
                    pieces.append(piece)
                    size += len(piece)
                    fits(size)
            return "".join(pieces)
        except RefusedError as error:
            raise ValueError(
                f"the chat template refuses these messages: {error}. Give messages as it wants them."
            ) from None
        except sandbox.SecurityError as error:
            raise ValueError(
                f"the chat template reaches for what no template may have: {error}. Do not use it."
            ) from None
        except _FAULTS as error:
            raise ValueError(
                f"the chat template does not work on these messages: {error or type(error).__name__}. Give "
                "each message what the template asks of it, or another template."
            ) from None


def _plain(value: Any, what: str) -> Any:
    """A copy in plain lists, mappings, texts and numbers: a template is handed no other objects."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} are plain JSON; got other things: {error}. Give texts and lists.") from None
