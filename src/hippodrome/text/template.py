"""Chat templates: messages to the text a model was trained to read, in a sandbox that ends."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property, wraps
from typing import Any

import jinja2
from jinja2 import ext, filters, nodes, sandbox
from jinja2.visitor import NodeTransformer

STEPS = 2**18
"""Turns of loops and calls that one rendering may take: a few seconds of work."""

LETTERS = 2**24
"""Letters of the longest text, and items of the longest list, that a template may make."""

_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
"""What stands around the assistant's words while they are marked; both are of a private area of Unicode."""

_left: ContextVar[list[int]] = ContextVar("steps left in the rendering that is going on")
_marks: ContextVar[tuple[str, str]] = ContextVar("what goes around the assistant's words", default=("", ""))

_FAULTS = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError),
)


class _RefusedError(jinja2.TemplateError):
    """What a template raises by ``raise_exception``: a refusal of the messages, not a fault of its own."""


def _spend() -> None:
    left = _left.get()
    left[0] -= 1
    if left[0] < 0:
        raise jinja2.TemplateRuntimeError(f"it takes more than {STEPS} turns of loops and calls")


def _fits(size: int) -> None:
    if size > LETTERS:
        raise jinja2.TemplateRuntimeError(f"it makes a text or list of more than {LETTERS} items")


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, each of them a step."""
    for item in items:
        _spend()
        yield item


def _joined(parts: list[Any]) -> str:
    """What ``~`` makes of its operands."""
    texts = [str(part) for part in parts]
    _fits(sum(map(len, texts)))
    return "".join(texts)


def _replaced(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    """The filter ``replace``."""
    text, old, new = str(text), str(old), str(new)
    _fits(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


@jinja2.pass_environment
def _strung(
    environment: jinja2.Environment, items: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    """The filter ``join``."""
    texts = list(items if attribute is None else map(filters.make_attrgetter(environment, attribute), items))
    _fits(sum(len(text) for text in texts if isinstance(text, str)) + len(str(d)) * len(texts))
    return str(d).join(map(str, texts))


def _indented(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """The filter ``indent``."""
    _fits((width if isinstance(width, int) else len(width)) * (1 + text.count("\n")) + len(text))
    return filters.do_indent(text, width, first, blank)


def _check_method(text: str, name: str, values: list[Any]) -> None:
    """Refuses a method of a text whose result would be too long, before it is there."""
    for value in values:  # 'x'.ljust(10**9) and the like
        _fits(value if isinstance(value, int) else 0)
    if name == "replace" and len(values) > 1:
        _replaced(text, values[0], values[1], 0)
    elif name == "join" and values:
        _fits(len(text) * len(values[0]) + sum(len(one) for one in values[0] if isinstance(one, str)))
    elif name == "format" and re.search(r"\d{5}", text):
        raise jinja2.TemplateRuntimeError("a chat template has no use for numbers so wide")
    elif name in ("expandtabs", "translate"):
        raise jinja2.TemplateRuntimeError(f"a chat template has no use for {name}")


def _raise(message: Any) -> None:
    raise _RefusedError(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is written; Jinja's own filter of the name would escape it for a web page."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _Bounded(NodeTransformer):
    """Makes loops and ``~`` count what they do."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_joined", [], [], None, None, lineno=node.lineno)


class _Words(ext.Extension):
    """The tag ``{% generation %}``, which some templates put around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  (so it is declared there)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        before, after = _marks.get()
        return f"{before}{caller()}{after}"


class _Environment(sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template reaches nothing but its arguments, and which counts its steps."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Bounded().visit(super()._parse(source, name, filename))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        _spend()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, obj.__name__, [*args, *kwargs.values()])
        return super().call(context, obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        made = super().wrap_str_format(value)
        if made is None:
            return None

        @wraps(made)
        def bounded(*args: Any, **kwargs: Any) -> str:
            _check_method(value.__self__, "format", [*args, *kwargs.values()])
            return made(*args, **kwargs)

        return bounded

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(side) if isinstance(side, str | list | tuple) else None for side in (left, right)]
        if operator == "+" and None not in sizes:
            _fits(sum(size or 0 for size in sizes))
        elif operator == "*" and sizes != [None, None]:
            size, times = (sizes[0], right) if sizes[0] is not None else (sizes[1], left)
            _fits((size or 0) * times if isinstance(times, int) else 0)
        elif operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateRuntimeError(f"a chat template has no use for {operator} here")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Environment:
    found = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Words, ext.loopcontrols])
    found.filters |= {"tojson": _to_json, "_counted": _counted, "_joined": _joined}
    found.filters |= {"replace": _replaced, "join": _strung, "indent": _indented}
    for name in ("center", "format", "wordwrap", "urlize"):  # whose results are longer than one can tell
        del found.filters[name]
    found.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return found


class Template:
    """A chat template: Jinja as it is written for checkpoints on the Hugging Face hub.

    It is text from a stranger, so it runs in Jinja's sandbox: it reads its arguments and nothing else, a
    rendering ends after ``STEPS`` turns of loops and calls, and no text in it grows beyond ``LETTERS``.
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
        if _OPEN in plain or _CLOSE in plain:
            raise ValueError(
                "messages hold U+F0000 or U+F0001, by which the assistant's words are marked. Remove them."
            )
        token = _marks.set((_OPEN, _CLOSE))
        try:
            marked = self.render(messages, add_generation_prompt=False, tools=tools)
        finally:
            _marks.reset(token)
        text, places = "", []
        for piece in marked.split(_OPEN):
            words, closed, rest = piece.partition(_CLOSE)
            if closed:
                places.append((len(text), len(text) + len(words)))
            text += words + rest
        return text, places

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return _environment().from_string(self.source)
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
        token = _left.set([STEPS])
        try:
            pieces, size = [], 0
            for piece in compiled.generate(
                self.special,
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            ):
                pieces.append(piece)
                size += len(piece)
                _fits(size)
            return "".join(pieces)
        except _RefusedError as error:
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
        finally:
            _left.reset(token)


def _plain(value: Any, what: str) -> Any:
    """A copy in plain lists, mappings, texts and numbers: a template is handed no other objects."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} are plain JSON; got other things: {error}. Give texts and lists.") from None
