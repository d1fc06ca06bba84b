"""Rename tables at work: which tensors of a checkpoint make up which of ours, read and written both ways."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hippodrome.config.layout import Layout, Rule

_PLACE = re.compile(r"\{(?:(\d+)\*?)?([a-z])(?:\+(\d+))?\}|\{([a-z_]+)\[([a-z])\]\}")
"""{i}, {2i}, {2i+1}, {blocks[i]} in a name of ours."""
_LOOKUP = re.compile(r"\{(?:([a-z_]+)\[)?([a-z])\]?\}")
"""{i}, {uses[i]} in a name of theirs."""
_PART = re.compile(r"(.+)\[(\d+)/(\d+)\]")

Shape = tuple[int, ...]


class Piece(NamedTuple):
    """Part ``part`` of ``of`` equal ones, along the rule's axis, of a tensor of theirs."""

    name: str
    part: int
    of: int


class Place(NamedTuple):
    """How a number in a name of ours is made of its letter: a multiple and an offset, or a list's item."""

    times: int
    offset: int
    among: str | None


class Made(NamedTuple):
    """A tensor of ours and what it is made of: rows of pieces, one row unless they are stacked."""

    ours: str
    rows: list[list[Piece]]
    rule: Rule
    sizes: list[int] | None


class Table(NamedTuple):
    """A layout with the numbers of one model in it."""

    made: list[Made]
    tied: dict[str, str]
    ignored: list[re.Pattern[str]]

    def names(self) -> set[str]:
        """Every name of theirs that is needed."""
        return {piece.name for one in self.made for row in one.rows for piece in row}

    def is_ignored(self, name: str) -> bool:
        """Whether a tensor of that name follows from the configuration."""
        return any(pattern.fullmatch(name) for pattern in self.ignored)


def table(
    layout: Layout,
    ours: Mapping[str, Shape],
    lists: Mapping[str, Sequence[int]],
) -> Table:
    """The table of a model whose tensors are ``ours``; ``lists`` holds what names and sizes look up.

    Raises:
        ValueError: a tensor of ours that no rule names, or that two do.
    """
    made: list[Made] = []
    rules = [(rule, _pattern(rule.ours)) for rule in layout.rules]
    for name, shape in ours.items():
        found = [(rule, _bound(pattern, name, lists)) for rule, pattern in rules]
        fits = [(rule, bound) for rule, bound in found if bound is not None]
        if len(fits) != 1:
            raise ValueError(f"{len(fits)} rules of the layout name {name}; it takes exactly one")
        rule, numbers = fits[0]
        rows = []
        for count in range(shape[0]) if rule.stack else (0,):
            values = {**numbers, **({rule.stack: count} if rule.stack else {})}
            rows.append([_piece(text, values, lists) for text in rule.theirs])
        sizes = list(lists[rule.sizes]) if rule.sizes else None
        made.append(Made(name, rows, rule, sizes))
    needed = {piece.name for one in made for row in one.rows for piece in row}
    return Table(made, _copies(layout.tied, lists, needed), [re.compile(text) for text in layout.ignored])


def assembled(one: Made, theirs: Mapping[str, Tensor], shape: Shape, dtype: torch.dtype) -> Tensor:
    """A tensor of ours, in memory of its own, from those of theirs."""
    made = torch.empty(shape, dtype=dtype)
    for row, into in zip(one.rows, made if one.rule.stack else [made], strict=True):
        start = 0
        for piece in row:
            part = cut(theirs[piece.name], piece, one.rule.dim)
            into.narrow(one.rule.dim, start, part.shape[one.rule.dim]).copy_(part)
            start += part.shape[one.rule.dim]
    return made.neg_() if one.rule.negated else made


def parts(one: Made, ours: Tensor) -> list[tuple[Piece, Tensor]]:
    """The pieces of theirs that a tensor of ours holds: what ``assembled`` did, undone."""
    found: list[tuple[Piece, Tensor]] = []
    ours = -ours if one.rule.negated else ours
    for row, tensor in zip(one.rows, ours if one.rule.stack else [ours], strict=True):
        length = tensor.shape[one.rule.dim]
        sizes = one.sizes or [length // len(row)] * len(row)
        found += zip(row, tensor.split(sizes, one.rule.dim), strict=True)
    return found


def expected(one: Made, ours: Shape) -> list[tuple[Piece, Shape]]:
    """The shape of each piece of theirs that fits a tensor of ours."""
    return [(p, tuple(t.shape)) for p, t in parts(one, torch.empty(ours, device="meta"))]


def cut(tensor: Tensor, piece: Piece, dim: int) -> Tensor:
    """The piece of a tensor of theirs."""
    return tensor if piece.of == 1 else tensor.chunk(piece.of, dim)[piece.part]


def _pattern(name: str) -> tuple[re.Pattern[str], dict[str, Place]]:
    """A name of ours as a regular expression, and how each number in it is made."""
    text, end, places = "", 0, {}
    for place in _PLACE.finditer(name):
        letter = place[2] or place[5]
        text += re.escape(name[end : place.start()]) + rf"(?P<{letter}>\d+)"
        places[letter] = Place(int(place[1] or 1), int(place[3] or 0), place[4])
        end = place.end()
    return re.compile(text + re.escape(name[end:])), places


def _bound(
    pattern: tuple[re.Pattern[str], dict[str, Place]], name: str, lists: Mapping[str, Sequence[int]]
) -> dict[str, int] | None:
    """The numbers that a name has in a pattern's places; None where it does not fit."""
    match = pattern[0].fullmatch(name)
    if match is None:
        return None
    found = {}
    for letter, (times, offset, among) in pattern[1].items():
        number, rest = divmod(int(match[letter]) - offset, times)
        if among is not None:
            if number not in lists[among]:
                return None
            number = lists[among].index(number)
        if rest or number < 0:
            return None
        found[letter] = number
    return found


def _copies(
    tied: Mapping[str, str], lists: Mapping[str, Sequence[int]], needed: Collection[str]
) -> dict[str, str]:
    """The names that may hold a copy of a tensor that is needed, and of which."""
    found = {}
    for copy, source in tied.items():
        if not copy.endswith("."):
            found[copy] = source
            continue
        places = list(_LOOKUP.finditer(copy + source))
        for i in range(min((len(lists[place[1]]) for place in places), default=1)):
            values = {place[2]: i for place in places}
            into, out_of = _filled(copy, values, lists), _filled(source, values, lists)
            inside = [name for name in needed if name.startswith(out_of) and into != out_of]
            found |= {into + name.removeprefix(out_of): name for name in inside}
    return found


def _filled(text: str, values: Mapping[str, int], lists: Mapping[str, Sequence[int]]) -> str:
    """A name of theirs with numbers in its places."""

    def number(place: re.Match[str]) -> str:
        return str(lists[place[1]][values[place[2]]] if place[1] else values[place[2]])

    return _LOOKUP.sub(number, text)


def _piece(text: str, values: Mapping[str, int], lists: Mapping[str, Sequence[int]]) -> Piece:
    match = _PART.fullmatch(text)
    name, part, of = (match[1], int(match[2]), int(match[3])) if match else (text, 0, 1)
    return Piece(_filled(name, values, lists), part, of)
