"""The sandbox of chat templates: Jinja that reaches nothing but its arguments, and that comes to an end."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2 import ext, filters, nodes, sandbox, utils
from jinja2.visitor import NodeTransformer

STEPS = 2**20
"""Turns of loops, calls and filters that one rendering may take: a few seconds of work."""

LETTERS = 2**24
"""Letters of the longest text, and items of the longest list, that a template may make."""

MADE = 16 * LETTERS
"""Letters of all texts, and items of all lists, that one rendering may make on its way."""

OPEN, CLOSE = "\U000f0000", "\U000f0001"
"""What stands around the assistant's words while they are marked; both are of a private area of Unicode."""

_left: ContextVar[list[int]] = ContextVar("steps and letters left in the rendering that is going on")
marks: ContextVar[tuple[str, str]] = ContextVar("what goes around the assistant's words", default=("", ""))

_UNUSED = ("batch", "center", "format", "pprint", "slice", "sum", "urlize", "wordwrap", "xmlattr")
"""Filters of Jinja that a chat template has no use for, and whose results are longer than one can tell."""

_STRUCTURAL = frozenset(
    (
        *("abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items"),
        *("join", "last", "length", "list", "map", "max", "min", "random", "reject", "rejectattr"),
        *("reverse", "round", "select", "selectattr", "sort", "tojson", "unique"),
    )
)
"""Filters that do not write a list out as text, or look after it themselves."""


class RefusedError(jinja2.TemplateError):
    """What a template raises by ``raise_exception``: a refusal of the messages, not a fault of its own."""


@contextmanager
def budget() -> Iterator[None]:
    """What one rendering may spend."""
    token = _left.set([STEPS, MADE])
    try:
        yield
    finally:
        _left.reset(token)


def _spend() -> None:
    left = _left.get()
    left[0] -= 1
    if left[0] < 0:
        raise jinja2.TemplateRuntimeError(f"it takes more than {STEPS} turns of loops and calls")


def fits(size: int) -> None:
    """Refuses a text or list of this size."""
    if size > LETTERS:
        raise jinja2.TemplateRuntimeError(f"it makes a text or list of more than {LETTERS} items")


def _make(size: int) -> None:
    """Takes note of a text or list of this size, before it is there where that can be."""
    fits(size)
    left = _left.get()
    left[1] -= size
    if left[1] < 0:
        raise jinja2.TemplateRuntimeError(f"it makes texts and lists of more than {MADE} items")


def _made(value: Any) -> Any:
    """A value that is there, taken note of."""
    if isinstance(value, str | list | tuple):
        _make(len(value))
    return value


def _weight(value: Any) -> int:
    """Letters and items of a value as it is written out, however its parts are shared."""
    if isinstance(value, str):
        return len(value)
    total, rest = 0, [value]
    while rest:
        one = rest.pop()
        if isinstance(one, utils.Namespace):
            raise jinja2.TemplateRuntimeError("a namespace is no text")
        whole = isinstance(one, Mapping) or (isinstance(one, Collection) and not isinstance(one, str))
        total += 1 if whole or not isinstance(one, str) else len(one)
        fits(total + len(rest) + (len(one) if whole else 0))
        if whole:
            rest += [*one, *one.values()] if isinstance(one, Mapping) else one
    return total


@jinja2.pass_context
def _shown(context: Any, value: Any) -> Any:
    """What ``{{ }}`` writes; with a context, so that nothing is worked out before there is a budget."""
    _make(_weight(value))
    return value


def _filter(name: str, made: Any) -> Any:
    """A filter whose uses are steps, and whose texts and lists count."""

    @wraps(made)
    def counted(*given: Any, **named: Any) -> Any:
        _spend()
        if name not in _STRUCTURAL:
            _make(sum(_weight(one) for one in given if isinstance(one, str | Collection)))
        return _made(made(*given, **named))

    return counted


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, each of them a step."""
    for item in items:
        _spend()
        yield item


def _joined(parts: list[Any]) -> str:
    """What ``~`` makes of its operands."""
    _make(sum(map(_weight, parts)))
    return "".join(map(str, parts))


def _replaced(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    """The filter ``replace``."""
    text, old, new = str(text), str(old), str(new)
    fits(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


@jinja2.pass_environment
def _strung(
    environment: jinja2.Environment, items: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    """The filter ``join``."""
    texts = list(items if attribute is None else map(filters.make_attrgetter(environment, attribute), items))
    fits(sum(map(_weight, texts)) + len(str(d)) * len(texts))
    return str(d).join(map(str, texts))


def _indented(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """The filter ``indent``."""
    fits((width if isinstance(width, int) else len(width)) * (1 + text.count("\n")) + len(text))
    return filters.do_indent(text, width, first, blank)


def _check_method(text: str, name: str, values: list[Any]) -> None:
    """Refuses a method of a text whose result would be too long, before it is there."""
    for value in values:  # 'x'.ljust(10**9) and the like
        fits(value if isinstance(value, int) else 0)
    if name == "replace" and len(values) > 1:
        _replaced(text, values[0], values[1], 0)
    elif name == "join" and values:
        fits(len(text) * len(values[0]) + sum(len(one) for one in values[0] if isinstance(one, str)))
    elif name == "format" and re.search(r"\d{5}", text):
        raise jinja2.TemplateRuntimeError("a chat template has no use for numbers so wide")
    elif name in ("expandtabs", "translate"):
        raise jinja2.TemplateRuntimeError(f"a chat template has no use for {name}")


def _raise(message: Any) -> None:
    raise RefusedError(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is written; Jinja's own filter of the name would escape it for a web page."""
    _weight(value)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if isinstance(indent, int):
        fits(indent)
    pieces, size = [], 0
    for piece in encoder.iterencode(value):
        size += len(piece)
        fits(size)
        pieces.append(piece)
    return "".join(pieces)


class _Bounded(NodeTransformer):
    """Makes loops, ``~``, slices and long texts of the template itself count what they do."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_joined", [], [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        if not isinstance(node.arg, nodes.Slice):
            return node
        return nodes.Filter(node, "_made", [], [], None, None, lineno=node.lineno)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        # What is short costs no more than the turn or call that writes it.
        return node if len(node.data) < 64 else nodes.Const(node.data, lineno=node.lineno)


class _Words(ext.Extension):
    """The tag ``{% generation %}``, which some templates put around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  (so it is declared there)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        before, after = marks.get()
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
        return _made(super().call(context, obj, *args, **kwargs))

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
            _make(sum(size or 0 for size in sizes))
        elif operator == "*" and sizes != [None, None]:
            size, times = (sizes[0], right) if sizes[0] is not None else (sizes[1], left)
            _make((size or 0) * times if isinstance(times, int) else 0)
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            fits(left.bit_length() * right.bit_length())
        elif operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateRuntimeError(f"a chat template has no use for {operator} here")
        return super().call_binop(context, operator, left, right)


def environment() -> jinja2.Environment:
    """Jinja as chat templates are written in it. What it renders, it renders within ``budget``."""
    found = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Words, ext.loopcontrols], finalize=_shown
    )
    for name in _UNUSED:
        del found.filters[name]
    found.filters |= {"tojson": _to_json, "replace": _replaced, "join": _strung, "indent": _indented}
    found.filters = {name: _filter(name, made) for name, made in found.filters.items()}
    found.filters |= {"_counted": _counted, "_joined": _joined, "_made": _made}
    found.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return found
