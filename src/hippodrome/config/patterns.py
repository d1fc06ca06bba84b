"""Patterns such as ``mamba2x3+attention``, their stacks, and widths that match a parameter count."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any

from hippodrome.backbones import SCANS, SHAPES
from hippodrome.config.allocation import SYMBOLS, from_symbols
from hippodrome.config.find import choices, find, kinds, suggest
from hippodrome.config.schema import build

BOTH_WAYS = "bi-"
"""In front of a kind: the mixer and a second one over the reversed tokens."""

SCAN = tuple(f"{name}-" for name in SCANS)
"""In front of a kind: mixers over a grid, one for each sequence of that set of orders (``cross-mamba``)."""

AND = "-and-"
"""Between kinds: mixers side by side on one input, what they give added (``mamba2-and-attention``)."""

MADE = {"bidirectional": "bi-s4d", "scan2d": "cross-mamba", "parallel": "mamba2-and-attention"}
"""The kinds that no pattern names, and how it writes one of them."""

FEED_FORWARD = ("mlp", "moe")
"""The kinds that a pattern names to say itself where perceptrons stand."""

Pattern = str | Sequence[str]
"""Kinds joined by +, or a list of them."""


def pattern_text(pattern: Pattern) -> str:
    """A pattern as one text: a list of kinds joined by +."""
    return pattern if isinstance(pattern, str) else "+".join(pattern)


def split_shape(pattern: Pattern) -> tuple[str | None, tuple[str, ...]]:
    """The shape in front of a pattern and the patterns of its stacks: ``hiss:s4:mamba`` has two.

    A pattern without a colon is one stack and has no shape. Raises ValueError for an unknown shape, with the
    nearest one there is, and for a colon with nothing behind it.
    """
    pattern = pattern_text(pattern)
    first, *stacks = pattern.replace(" ", "").split(":")
    if not stacks:
        return None, (first,)
    if first not in SHAPES:
        raise ValueError(
            f"there is no backbone {first!r} to put stacks into (in {pattern!r}){suggest(first, SHAPES)}"
        )
    if not all(stacks):
        raise ValueError(
            f"behind each colon stands the pattern of a stack ({first}:s4d); got {pattern!r}. Fill it in."
        )
    return first, tuple(stacks)


def pattern_layers(pattern: Pattern, depth: int | None = None) -> tuple[str, ...]:
    """The kinds of mixers in the longest stack of a pattern, at least ``depth`` of them, repeated as needed.

    What decides how deep a model of that pattern is: no stack of it is cut below one turn of its pattern.
    """
    stacks = [parse_pattern(part) for part in split_shape(pattern)[1]]
    longest = max(stacks, key=len)
    return tuple(longest[i % len(longest)] for i in range(max(depth or 0, len(longest))))


def bare(layer: str) -> str:
    """The kind of mixer in a layer of a pattern, without what stands in front of it."""
    first = next((prefix for prefix in (BOTH_WAYS, *SCAN) if layer.startswith(prefix)), "")
    return layer.removeprefix(first)


def option_kinds(pattern: Pattern) -> list[str]:
    """The kinds of a pattern that take options: its backbone, its wrapper over grids, and its mixers."""
    shape, _ = split_shape(pattern)
    layers = pattern_kinds(pattern)
    scans = any(layer.startswith(SCAN) for layer in layers)
    beside = any(AND in layer for layer in layers)
    named = [
        *([shape] if shape else []),
        *(["scan2d"] if scans else []),
        *(["parallel"] if beside else []),
        *(bare(one) for layer in layers for one in layer.split(AND)),
    ]
    return list(dict.fromkeys(named))


def pattern_kinds(pattern: Pattern) -> tuple[str, ...]:
    """The kinds of mixers anywhere in a pattern, each once."""
    return tuple(dict.fromkeys(kind for part in split_shape(pattern)[1] for kind in parse_pattern(part)))


def parse_pattern(pattern: Pattern, depth: int | None = None) -> tuple[str, ...]:
    """The kind of mixer in each layer: ``mamba2x3+attention`` is three of one, then one of the other.

    A list of kinds is a pattern too. ``bi-s4d`` is a layer that reads both ways, with a mixer of that kind
    for each direction; ``cross-mamba`` (``atrous-``, ``diagonals-``, ``snakes-``) one that reads a grid, with
    a mixer for each sequence of the scan; ``mamba2-and-attention`` one of mixers side by side. ``mlp`` and
    ``moe`` are layers as any other. A part may be in the
    symbols of published hybrids (``M-M*-``, or ``M56*.08-.5`` by shares; see ``allocation``). The pattern is
    repeated and cut off to ``depth`` layers; None takes it once. One stack's pattern: what a shape holds is
    parsed part by part (``split_shape``). Raises ValueError for an empty part, a count below one, a backbone,
    or an unknown kind, with the nearest one there is.
    """
    known = choices("mixers")
    pattern = pattern_text(pattern)
    layers: list[str] = []
    for part in pattern.replace(" ", "").split("+"):
        match = re.fullmatch(r"(.+?)x(\d+)", part)
        kind, count = (match[1], int(match[2])) if match and part not in known else (part, 1)
        if not kind or count < 1:
            raise ValueError(
                f"a pattern is kinds joined by +, each with an optional count of 1 or more "
                f"(mamba2x3+attention); got {pattern!r}"
            )
        symbols = from_symbols(kind)
        if symbols is not None:
            layers += symbols * count
            continue
        beside = kind.split(AND)
        if len(beside) > 1:
            unknown = [one for one in beside if one not in kinds("mixers")]
            if unknown:
                raise ValueError(
                    f"kinds of mixers stand side by side (mamba2-and-attention), and {unknown[0]!r} is none "
                    f"(in the pattern {pattern!r}){suggest(unknown[0], kinds('mixers'))}"
                )
            layers += [kind] * count
            continue
        one_way = bare(kind)
        named = kinds("mixers") if one_way != kind else known
        if one_way in SHAPES:
            raise ValueError(
                f"{one_way} is a backbone, which stands before a colon and its stacks: {one_way}:s4d, say; "
                f"got {pattern!r}"
            )
        if kind in MADE:
            raise ValueError(
                f"{kind} is made of mixers, and a pattern says of which: {MADE[kind]}, say; got {pattern!r}"
            )
        if one_way in known and one_way not in named:
            raise ValueError(
                f"the word before {one_way!r} wants a mixer that reads one way, and it reads more (in the "
                f"pattern {pattern!r}). Name it alone, or take another mixer, mamba say"
            )
        if one_way not in named and part.isupper():
            told = ", ".join(f"{symbol} for {name}" for symbol, name in SYMBOLS.items())
            raise ValueError(f"a pattern in symbols has {told}, and nothing else; got {part!r}")
        if one_way not in named:
            raise ValueError(
                f"there is no mixer {one_way!r} (in the pattern {pattern!r}){suggest(one_way, named)}"
            )
        layers += [kind] * count
    if depth is None:
        return tuple(layers)
    if depth < 1:
        raise ValueError(f"the depth counts layers, so it is 1 or more; got {depth}")
    return tuple(layers[i % len(layers)] for i in range(depth))


def stack_spec(
    pattern: Pattern,
    d_model: int,
    depth: int | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    mlp: bool | Collection[str] | None = None,
    d_hidden: int | None = None,
    norm: str = "rms",
    dropout: float = 0.0,
    recompute: bool = False,
    norm_eps: float = 1e-5,
    scale: float | Mapping[str, float] = 1.0,
    post_norm: bool = False,
) -> dict[str, Any]:
    """The spec of a stack of blocks after a pattern, or of the backbone that the pattern names.

    ``sashimi:s4`` puts stacks of S4 into that backbone, ``hiss:s4:mamba`` one pattern into each of its
    levels; each stack has ``depth`` layers (None: its pattern once). Options of the backbone stand under its
    name.
    ``options`` gives more constructor arguments for a kind of mixer: ``{"mamba": {"d_state": 8}}``. ``mlp``
    says which blocks get a gated MLP behind the mixer: all, none, those of the kinds named, or (None) those
    of every kind whose class does not declare ``mixes_channels = True``: Mamba's block is its own MLP. A
    stack whose pattern names ``mlp`` or ``moe`` says itself where they stand and gets none besides. A
    layer ``bi-s4d`` takes the options, and the MLP or none, of ``s4d``, and so does ``cross-s4d``, whose own
    stand under ``scan2d``: ``sizes``, ``average``, and ``shared`` for one mixer along all orders. Those of
    ``mamba2-and-attention`` stand under ``mamba2``, ``attention`` and, for the factors, ``parallel``.
    ``scale`` is of what branches add to the residual stream, in all blocks or by the name of the layer.
    ``recompute`` trades time for memory in training; ``post_norm`` puts norms behind the residuals.
    """
    options = options or {}
    shape, parts = split_shape(pattern)
    inside = option_kinds(pattern)
    unused = [kind for kind in options if kind not in inside]
    if unused:
        raise ValueError(
            f"options for {unused[0]!r}, which is not in the pattern {pattern!r}{suggest(unused[0], inside)}"
        )

    if isinstance(scale, Mapping):
        layers = pattern_kinds(pattern)
        unused = sorted(set(scale).difference(layers))
        if unused:
            near = suggest(unused[0], layers)
            raise ValueError(f"a scale for {unused[0]!r}, which is not in the pattern {pattern!r}{near}")

    def stack(part: str) -> Callable[[int, int | None], dict[str, Any]]:
        def make(width: int, depth: int | None = depth) -> dict[str, Any]:
            made = _stack(part, width, depth, options, mlp, d_hidden, norm, dropout, recompute, norm_eps)
            if post_norm:
                made["blocks"] = [{**block, "post_norm": True} for block in made["blocks"]]
            return _scaled(made, parse_pattern(part, depth), scale)

        return make

    if shape is None:
        return stack(parts[0])(d_model, depth)
    hook: Any = import_module(f"hippodrome.backbones.{shape}").spec
    return {
        "kind": shape,
        **hook([stack(part) for part in parts], d_model, depth, dict(options.get(shape, {}))),
    }


def _stack(
    pattern: str,
    d_model: int,
    depth: int | None,
    options: Mapping[str, Mapping[str, Any]],
    mlp: bool | Collection[str] | None,
    d_hidden: int | None,
    norm: str,
    dropout: float,
    recompute: bool,
    norm_eps: float,
) -> dict[str, Any]:
    """The spec of one stack."""
    layers = parse_pattern(pattern, depth)
    if mlp is None and not set(FEED_FORWARD).isdisjoint(parse_pattern(pattern)):
        mlp = False
    blocks = []
    for layer in layers:
        inside = [bare(one) for one in layer.split(AND)]
        if mlp is None:
            wanted = not any(getattr(find("mixers", kind), "mixes_channels", False) for kind in inside)
        else:
            wanted = mlp if isinstance(mlp, bool) else not set(inside).isdisjoint(mlp)
        mixers = [{"kind": kind, "d_model": d_model, **options.get(kind, {})} for kind in inside]
        blocks.append(
            {
                "kind": "block",
                "mixer": mixers[0] if layer == inside[0] else _wrapped(layer, mixers, options),
                "mlp": {"kind": "mlp", "d_model": d_model, "d_hidden": d_hidden} if wanted else None,
                "norm": norm,
                "dropout": dropout,
                **({} if norm_eps == 1e-5 else {"norm_eps": norm_eps}),
            }
        )
    return {"kind": "stack", "blocks": blocks, **({"recompute": True} if recompute else {})}


def _scaled(
    stack: dict[str, Any], layers: Sequence[str], scale: float | Mapping[str, float]
) -> dict[str, Any]:
    """The spec of a stack with the factor of each block's branches, where it is not one."""
    for block, layer in zip(stack["blocks"], layers, strict=True):
        factor = scale.get(layer, 1.0) if isinstance(scale, Mapping) else scale
        if factor != 1.0:
            block["scale"] = factor
    return stack


def _wrapped(
    layer: str, mixers: list[dict[str, Any]], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The spec of a layer that is made of mixers."""
    if len(mixers) > 1:
        return {"kind": "parallel", "mixers": mixers, **options.get("parallel", {})}
    (mixer,) = mixers
    if layer.startswith(BOTH_WAYS):
        return _both_ways(mixer)
    given = dict(options.get("scan2d", {}))
    count = 1 if given.pop("shared", False) else 4  # every set is four sequences
    orders = [layer.removesuffix(mixer["kind"])[:-1]]
    return {"kind": "scan2d", "mixers": [mixer] * count, "orders": orders, **given}


def _both_ways(mixer: dict[str, Any]) -> dict[str, Any]:
    """The spec of a bidirectional layer: two of a mixer, whose output map, if it has one, follows the sum."""
    cls: Any = find("mixers", mixer["kind"])
    one = {**mixer, "gated": False} if "gated" in inspect.signature(cls.__init__).parameters else mixer
    return {
        "kind": "bidirectional",
        "ahead": one,
        "back": one,
        "convention": cls.reversed_from,
        "gated": one is not mixer and bool(mixer.get("gated", True)),
    }


def count_parameters(spec: Mapping[str, Any], *, embeddings: bool = True, active: bool = False) -> int:
    """How many parameters the model of a spec has, tied ones once; ``embeddings=False`` leaves tables out.

    With ``active`` those alone that one token goes through: all, but of the experts of a mixture the chosen.
    Built on the meta device, so that nothing is allocated; where an initialization needs real numbers, on the
    CPU. PyTorch's random state stays as it was.
    """
    import torch
    from torch import nn

    from hippodrome.layers.moe import idle_parameters

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = build(spec)
        except RuntimeError:
            with torch.device("cpu"):
                model = build(spec)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = sum(p.numel() for p in model.parameters() if embeddings or id(p) not in tables)
    return found - idle_parameters(model) if active else found


def match_width(
    make_spec: Callable[[int], Mapping[str, Any]],
    parameters: int,
    multiple: int = 8,
    *,
    embeddings: bool = True,
) -> int:
    """The width whose model has the number of parameters closest to ``parameters``.

    ``make_spec`` takes a width (d_model) and gives a model's spec. Widths tried are multiples of
    ``multiple``, or of what the constructors ask for beyond that (head counts). ``embeddings`` says whether
    embedding tables count. Raises the constructors' ValueError where they refuse every width, and says so
    where even the smallest model is more than twice the size asked for.
    """
    counts: dict[int, int] = {}

    def count(width: int) -> int:
        if width not in counts:
            counts[width] = count_parameters(make_spec(width), embeddings=embeddings)
        return counts[width]

    start, stride = _valid_widths(count, multiple)
    if count(start) > 2 * parameters:
        raise ValueError(
            f"no width gives {parameters:,} parameters: the smallest model (width {start}) has "
            f"{count(start):,}. Ask for more parameters or fewer layers."
        )
    # The count grows about as the square of the width, so its root is followed along a straight line.
    low, high = 0, max(1, round((parameters / count(start)) ** 0.5 * start / stride))
    while count(start + high * stride) < parameters:
        low, high = high, 2 * high
    while high - low > 1 and count(start + low * stride) < parameters:
        below, above = (count(start + i * stride) ** 0.5 for i in (low, high))
        middle = low + round((high - low) * (parameters**0.5 - below) / (above - below))
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if count(start + middle * stride) < parameters else (low, middle)
    best = min((low, high), key=lambda i: abs(count(start + i * stride) - parameters))
    return start + best * stride


def _valid_widths(count: Callable[[int], int], multiple: int, limit: int = 1024) -> tuple[int, int]:
    """The first width that the constructors accept, and the distance to the next."""
    accepted: list[int] = []
    refusal: ValueError | None = None
    limit = max(limit, 4 * multiple)
    for width in range(multiple, limit + 1, multiple):
        try:
            count(width)
        except ValueError as error:
            refusal = refusal or error
        else:
            accepted.append(width)
        if len(accepted) == 2:
            return accepted[0], accepted[1] - accepted[0]
    raise refusal or ValueError(f"no width up to {limit} is accepted")
