"""Rows of the structured family: layers of S4D, S5 and LRU, the kernel of S4, cost by length, one step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hippodrome.bench import rivals
from hippodrome.bench.measure import take_turns, timing
from hippodrome.bench.row import Ask, Contender, Row, Timing, Where, leaves
from hippodrome.config import find
from hippodrome.mixers.base import Mixer
from hippodrome.ops import _pairs
from hippodrome.ops.dplr_kernel import dplr_kernel
from hippodrome.ops.dplr_kernel.examples import inputs as dplr_inputs
from hippodrome.ops.linear import linear
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde

LONGEST_GRU = 4096
"""Steps beyond which a GRU, which cannot run them side by side, would take most of the row's time."""
STEPS = 20
"""Steps of one measurement of decoding."""
STEPPED = ("s4d", "s5", "lru", "s4", "min_gru", "gla", "mamba", "mamba2")
"""Mixers whose single steps stand beside each other."""


def _mixer(kind: str, d: int, where: Where, **options: object) -> Any:
    torch.manual_seed(0)
    return find("mixers", kind)(d, **options).to(where.device)


def _input(where: Where, b: int, t: int, d: int) -> Tensor:
    return where.normal(1)(b, t, d)


def _gru(where: Where, b: int, t: int, d: int) -> list[Contender]:
    """A GRU of the same width, where the length lets it end; it does other work."""
    if t > LONGEST_GRU:
        return []
    torch.manual_seed(0)
    gru = nn.GRU(d, d, batch_first=True).to(where.device)
    (x,) = leaves(_input(where, b, t, d))
    return [Contender("GRU of the same width", lambda: gru(x)[0], [x, *gru.parameters()], same=False)]


def s4d_layer_row(where: Where, b: int, t: int, d: int, n: int) -> list[Contender]:
    """The layer with its GELU and gated map, from its parameters; n complex modes a channel."""
    mixer = _mixer("s4d", d, where, d_state=2 * n)
    weights = list(mixer.parameters())
    (x,), (turned,) = leaves(_input(where, b, t, d)), leaves(_input(where, b, t, d).mT.contiguous())
    bare = leaves(_input(where, b, t, d).mT.contiguous(), where.normal(2)(d, t) / t**0.5)

    def textbook() -> Tensor:
        weight = torch.view_as_complex(2 * mixer.C) * torch.view_as_complex(mixer.B)
        y = rivals.textbook_s4d(turned, mixer.log_A_real, mixer.A_imag, weight, mixer.log_dt, mixer.D)
        return mixer.output(y.mT)

    return [
        Contender("hippodrome", lambda: mixer(x)[0], [x, *weights]),
        Contender(
            "FFT convolution, kernel given", lambda: rivals.fft_convolution(*bare).mT, bare, floor=True
        ),
        Contender("textbook S4D, the same output map", textbook, [turned, *weights]),
        *_gru(where, b, t, d),
    ]


def _products_and_scan(x: Tensor, n: int, *maps: tuple[int, int]) -> Contender:
    """What a shared state cannot do without: a product to its n modes, our scan, the products after it."""
    d = x.shape[-1]
    normal = Where(x.device).normal(3)
    into = normal(d, 2 * n) / d**0.5
    a = torch.stack([torch.linspace(-0.1, -0.001, n), torch.linspace(0.0, 3.0, n)], -1).to(x.device)
    after = [normal(i, o) / i**0.5 for i, o in maps]
    mine = leaves(x, into, _pairs.exp(a), *after)

    def run() -> Tensor:
        u, into, factor, *after = mine
        y = linear_scan_complex(factor, linear(u, into.mT).unflatten(-1, (-1, 2)))[0].flatten(-2)
        for weight in after:
            y = linear(y, weight.mT)
        return y

    return Contender("its matrix products and our scan alone", run, mine, floor=True)


def s5_row(where: Where, b: int, t: int, d: int, n: int) -> list[Contender]:
    """The system, n complex modes: what the public package's layer is, which has the same parameters."""
    mixer = _mixer("s5", d, where, d_state=2 * n, gated=False)
    x = _input(where, b, t, d)
    (mine,) = leaves(x)
    found = [
        Contender("hippodrome", lambda: mixer(mine)[0], [mine, *mixer.parameters()]),
        _products_and_scan(x, n, (2 * n, d)),
    ]
    if where.device.type == "cpu" and rivals.have("s5-pytorch"):
        package, weights = rivals.public_s5(mixer.system(), mixer.step_size())
        (theirs,) = leaves(x)
        found.append(Contender("s5-pytorch", lambda: package(theirs), [theirs, *weights]))
    return [*found, *_gru(where, b, t, d)]


def lru_row(where: Where, b: int, t: int, d: int, n: int) -> list[Contender]:
    """The unit with its GELU and gated map, n complex modes; the product of that map is in the floor."""
    mixer = _mixer("lru", d, where, d_state=n, r_min=0.9, r_max=0.999)
    x = _input(where, b, t, d)
    (mine,) = leaves(x)
    return [
        Contender("hippodrome", lambda: mixer(mine)[0], [mine, *mixer.parameters()]),
        _products_and_scan(x, n, (2 * n, d), (d, 2 * d)),
        *_gru(where, b, t, d),
    ]


def dplr_kernel_row(where: Where, d: int, n: int, length: int) -> list[Contender]:
    """S4's kernel from its parameters, n pairs of poles, beside ours for a diagonal system of that size."""
    poles, P, Q, B, C, step, _ = dplr_inputs(d, n, length=length, dtype=torch.float32)
    poles, P, Q, B, C, step = (x.to(where.device) for x in (poles, P, Q, B, C, step))
    mine = leaves(poles, P, Q, B, C, step)

    def ours() -> Tensor:
        poles, P, Q, B, C, step = mine
        return dplr_kernel(poles, P, Q, B, C, step, length)

    a, c = leaves(poles * step[:, None, None], C)
    return [
        Contender("hippodrome", ours, mine),
        Contender("our Vandermonde kernel", lambda: vandermonde(a, c, length), [a, c], same=False),
    ]


def _by_length(
    where: Where, kind: str, tokens: int, d: int, lengths: list[int], **options: object
) -> list[Contender]:
    """One layer over as many tokens in many short rows and in few long ones."""
    mixer = _mixer(kind, d, where, **options)
    found = []
    for t in lengths:
        (x,) = leaves(_input(where, tokens // t, t, d))
        name = f"hippodrome, b={tokens // t} t={t}"
        found.append(Contender(name, partial(_outputs, mixer, x), [x, *mixer.parameters()], same=False))
    return found


def _outputs(mixer: Mixer, x: Tensor) -> Tensor:
    y: Tensor = mixer(x)[0]
    return y


def s4d_length_row(where: Where, tokens: int, d: int, n: int) -> list[Contender]:
    """S4D by length: the ratios are those of the cost of a token."""
    lengths = [tokens // 64, tokens // 16, tokens // 4, tokens]
    return _by_length(where, "s4d", tokens, d, lengths, d_state=2 * n)


def s5_length_row(where: Where, tokens: int, d: int, n: int) -> list[Contender]:
    """S5 by length."""
    lengths = [tokens // 64, tokens // 16, tokens // 4, tokens]
    return _by_length(where, "s5", tokens, d, lengths, d_state=2 * n)


def h3_length_row(where: Where, tokens: int, d: int) -> list[Contender]:
    """H3 over one row of each length; times and memory are those of a token."""
    mixer = _mixer("h3", d, where)
    found = []
    for t in (tokens // 64, tokens // 16, tokens // 4, tokens):
        (x,) = leaves(_input(where, 1, t, d))
        call = partial(_outputs, mixer, x)
        found.append(Contender(f"hippodrome, t={t}", call, [x, *mixer.parameters()], same=False, units=t))
    return found


def decode_rows(ask: Ask) -> list[Timing]:
    """Seconds of one step that overwrites its state, one row: attention with so many tokens in its cache."""
    widths, contexts = ([16], [8]) if ask.tiny else ([64, 256, 768], [1024, 4096, 16384])
    found = []
    for d in widths:
        calls = {
            f"hippodrome, {kind}": _steps(_mixer(kind, d, ask.where), d, 0, ask.where) for kind in STEPPED
        }
        for context in contexts:
            attention = _mixer("attention", d, ask.where)
            calls[f"attention, {context} tokens"] = _steps(attention, d, context, ask.where)
        with torch.inference_mode():
            taken = take_turns(calls, ask.pace, ask.where.device)
        for name, seconds in taken.items():
            each = [s / STEPS for s in seconds]
            found.append(timing(ask.row, "one step", name, {"b": 1, "d": d}, ask.threads, each))
    return found


def _steps(mixer: Mixer, d: int, context: int, where: Where) -> Callable[[], None]:
    mixer.eval()
    x = torch.randn(1, d, device=where.device)
    with torch.inference_mode():
        state: Any = mixer.init_state(1, context + STEPS)
        if context:
            for tensor in state[:2]:
                tensor.normal_()

    def run() -> None:
        if context:
            state.seen.fill_(context)
        for _ in range(STEPS):
            mixer.advance_(x, state)

    return run


def _shapes(**sizes: int) -> list[dict[str, int]]:
    """1k to 64k tokens a row; at 64k two rows, for all contenders alike, so that all fit in memory."""
    return [{"b": 8 if t < 65536 else 2, "t": t, **sizes} for t in (1024, 4096, 16384, 65536)]


BY_LENGTH = (
    "The same number of tokens in many short rows and in few long ones: the ratios are those of the cost of "
    "a token."
)
TINY = {"b": 2, "t": 64, "d": 8, "n": 4}
ROWS = (
    Row(
        "s4d-layer",
        "layer",
        "S4D, the whole layer",
        "The system, GELU and the gated map across channels. The bare FFT convolution, given its kernel, "
        "stands for what a convolutional form cannot go below and does no map. The textbook form has our "
        "output map. A GRU of the same width stands beside it up to 4k tokens. At 64k there are two rows and "
        "64 channels, for all alike: the textbook form holds d x n x t complex numbers several times.",
        [*_shapes(d=256, n=32)[:3], {"b": 2, "t": 65536, "d": 64, "n": 32}],
        TINY,
        s4d_layer_row,
    ),
    Row(
        "s5",
        "layer",
        "S5: one state for all channels",
        "The system with its skip, n complex modes, without the output map: what the layer of `s5-pytorch` "
        "is, which has the same parameters. The floor is what the form cannot do without: the products B u "
        "and C x, and our scan between them. At 64k there are two rows for all alike.",
        # The size of the other rows of this family, and one whose matrix products take most of the time.
        [*_shapes(d=256, n=32), {"b": 8, "t": 4096, "d": 256, "n": 128}],
        TINY,
        s5_row,
        rivals=("s5-pytorch",),
    ),
    Row(
        "lru",
        "layer",
        "LRU, the whole layer",
        "The system, GELU and the gated map. The floor is the products B u, C x and the map's own, and our "
        "scan. At 64k there are two rows for all alike.",
        _shapes(d=256, n=128),
        TINY,
        lru_row,
    ),
    Row(
        "dplr-kernel",
        "layer",
        "The kernel of S4 (diagonal plus low rank)",
        "From poles, low-rank columns and weights to a kernel of so many values, n pairs of poles. Beside it "
        "ours for a diagonal system of the same size, with no low-rank part to correct for.",
        [{"d": 256, "n": 32, "length": length} for length in (1024, 4096, 16384)],
        {"d": 4, "n": 4, "length": 64},
        dplr_kernel_row,
    ),
    Row(
        "s4d-length",
        "layer",
        "Cost of a token by length: an S4D layer",
        BY_LENGTH,
        [{"tokens": 65536, "d": 256, "n": 32}],
        {"tokens": 64, "d": 8, "n": 4},
        s4d_length_row,
    ),
    Row(
        "s5-length",
        "layer",
        "Cost of a token by length: an S5 layer",
        BY_LENGTH,
        [{"tokens": 65536, "d": 256, "n": 128}],
        {"tokens": 64, "d": 8, "n": 4},
        s5_length_row,
    ),
    Row(
        "flat-h3",
        "layer",
        "Cost of a token by length: an H3 layer, one row",
        "Time and memory of a token. Without gradients time runs in blocks: what a call holds beyond its "
        "input and its output (4 d bytes a token) does not grow with the length, so the memory of a token "
        "falls to that of its output. With gradients all that the backward pass needs is kept.",
        [{"tokens": 262144, "d": 64}],
        {"tokens": 256, "d": 8},
        h3_length_row,
    ),
    Row(
        "decode-step",
        "layer",
        "One step of decoding beside attention with a cache",
        "One row, one token, the state overwritten in place. Attention has so many tokens in its cache of "
        "keys and values; the others' states do not grow.",
        measure=decode_rows,
    ),
)
"""The rows of layers."""
