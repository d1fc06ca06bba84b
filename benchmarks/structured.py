"""Rows of the structured family: layers of S4D, S5 and LRU, the kernel of S4, cost by length, one step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import rivals
from benchmarks.measure import Contender, Pace, Timing, leaves, middle, take_turns
from hippodrome.config import find
from hippodrome.mixers.base import Mixer
from hippodrome.ops import _pairs
from hippodrome.ops.dplr_kernel import dplr_kernel
from hippodrome.ops.dplr_kernel.examples import inputs as dplr_inputs
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde

LONGEST_GRU = 4096
"""Steps beyond which a GRU, which cannot run them side by side, would take most of the row's time."""
STEPS = 20
"""Steps of one measurement of decoding."""


def _mixer(kind: str, d: int, **options: object) -> Mixer:
    torch.manual_seed(0)
    mixer: Mixer = find("mixers", kind)(d, **options)
    return mixer


def _input(b: int, t: int, d: int) -> Tensor:
    return torch.randn(b, t, d, generator=torch.Generator().manual_seed(1))


def _gru(b: int, t: int, d: int) -> list[Contender]:
    """A GRU of the same width, where the length lets it end; it does other work."""
    if t > LONGEST_GRU:
        return []
    torch.manual_seed(0)
    gru = nn.GRU(d, d, batch_first=True)
    (x,) = leaves(_input(b, t, d))
    return [Contender("GRU of the same width", lambda: gru(x)[0], [x, *gru.parameters()], same=False)]


def s4d_layer_row(b: int, t: int, d: int, n: int) -> list[Contender]:
    """The layer with its GELU and gated map, from its parameters; n complex modes a channel."""
    mixer = _mixer("s4d", d, d_state=2 * n)
    weights = list(mixer.parameters())
    (x,), (turned,) = leaves(_input(b, t, d)), leaves(_input(b, t, d).mT.contiguous())
    bare = leaves(_input(b, t, d).mT.contiguous(), torch.randn(d, t) / t**0.5)

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
        *_gru(b, t, d),
    ]


def _products_and_scan(x: Tensor, n: int, *maps: tuple[int, int]) -> Contender:
    """What a shared state cannot do without: a product to its n modes, our scan, the products after it."""
    d = x.shape[-1]
    into = torch.randn(d, 2 * n) / d**0.5
    a = torch.stack([torch.linspace(-0.1, -0.001, n), torch.linspace(0.0, 3.0, n)], -1)
    after = [torch.randn(i, o) / i**0.5 for i, o in maps]
    mine = leaves(x, into, _pairs.exp(a), *after)

    def run() -> Tensor:
        u, into, factor, *after = mine
        y = linear_scan_complex(factor, (u @ into).unflatten(-1, (-1, 2)))[0].flatten(-2)
        for weight in after:
            y = y @ weight
        return y

    return Contender("its matrix products and our scan alone", run, mine, floor=True)


def s5_row(b: int, t: int, d: int, n: int) -> list[Contender]:
    """The system, n complex modes: what the public package's layer is, which has the same parameters."""
    mixer = _mixer("s5", d, d_state=2 * n, gated=False)
    x = _input(b, t, d)
    (mine,) = leaves(x)
    package, weights = rivals.public_s5(mixer.system(), mixer.step_size())
    (theirs,) = leaves(x)
    return [
        Contender("hippodrome", lambda: mixer(mine)[0], [mine, *mixer.parameters()]),
        _products_and_scan(x, n, (2 * n, d)),
        Contender("s5-pytorch", lambda: package(theirs), [theirs, *weights]),
        *_gru(b, t, d),
    ]


def lru_row(b: int, t: int, d: int, n: int) -> list[Contender]:
    """The unit with its GELU and gated map, n complex modes; the product of that map is in the floor."""
    mixer = _mixer("lru", d, d_state=n, r_min=0.9, r_max=0.999)
    x = _input(b, t, d)
    (mine,) = leaves(x)
    return [
        Contender("hippodrome", lambda: mixer(mine)[0], [mine, *mixer.parameters()]),
        _products_and_scan(x, n, (2 * n, d), (d, 2 * d)),
        *_gru(b, t, d),
    ]


def dplr_kernel_row(d: int, n: int, length: int) -> list[Contender]:
    """S4's kernel from its parameters, n pairs of poles, beside ours for a diagonal system of that size."""
    *tensors, length = dplr_inputs(d, n, length=length, dtype=torch.float32)
    mine = leaves(*tensors)
    poles, _, _, _, C, step = tensors
    plain = leaves(poles * step[:, None, None], C)
    return [
        Contender("hippodrome", lambda: dplr_kernel(*mine, length), mine),
        Contender("our Vandermonde kernel", lambda: vandermonde(*plain, length), plain, same=False),
    ]


def _by_length(kind: str, tokens: int, d: int, lengths: list[int], **options: object) -> list[Contender]:
    """One layer over as many tokens in many short rows and in few long ones."""
    mixer = _mixer(kind, d, **options)
    found = []
    for t in lengths:
        (x,) = leaves(_input(tokens // t, t, d))
        name = f"hippodrome, b={tokens // t} t={t}"
        found.append(Contender(name, lambda x=x: mixer(x)[0], [x, *mixer.parameters()], same=False))
    return found


def s4d_length_row(tokens: int, d: int, n: int) -> list[Contender]:
    """S4D by length: the ratios are those of the cost of a token."""
    lengths = [tokens // 64, tokens // 16, tokens // 4, tokens]
    return _by_length("s4d", tokens, d, lengths, d_state=2 * n)


def s5_length_row(tokens: int, d: int, n: int) -> list[Contender]:
    """S5 by length."""
    lengths = [tokens // 64, tokens // 16, tokens // 4, tokens]
    return _by_length("s5", tokens, d, lengths, d_state=2 * n)


def decode_rows(threads: int, widths: list[int], contexts: list[int], pace: Pace) -> list[Timing]:
    """Seconds of one step that overwrites its state, one row: attention with so many tokens in its cache."""
    found = []
    for d in widths:
        calls = {kind: _steps(_mixer(kind, d), d, 0) for kind in ("s4d", "s5", "lru", "s4")}
        for context in contexts:
            calls[f"attention, {context} tokens"] = _steps(_mixer("attention", d), d, context)
        with torch.inference_mode():
            taken = take_turns(calls, pace)
        for name, seconds in taken.items():
            mid, low, high = middle([s / STEPS for s in seconds])
            row, phase, shape = "decode-step", "one step", {"b": 1, "d": d}
            found.append(Timing(row, phase, name, shape, threads, mid, low, high, len(seconds)))
    return found


def _steps(mixer: Mixer, d: int, context: int) -> Callable[[], None]:
    mixer.eval()
    x = torch.randn(1, d)
    with torch.inference_mode():
        state = mixer.init_state(1, context + STEPS)
        if context:
            for tensor in state[:2]:
                tensor.normal_()

    def run() -> None:
        if context:
            state.seen.fill_(context)
        for _ in range(STEPS):
            mixer.advance_(x, state)

    return run


Row = tuple[Callable[..., list[Contender]], list[dict[str, int]], dict[str, int]]


def _shapes(**sizes: int) -> list[dict[str, int]]:
    """1k to 64k tokens a row; at 64k two rows, for all contenders alike, so that all fit in memory."""
    return [{"b": 8 if t < 65536 else 2, "t": t, **sizes} for t in (1024, 4096, 16384, 65536)]


ROWS: dict[str, Row] = {
    "s4d-layer": (
        s4d_layer_row,
        # The textbook holds d x n x t complex numbers several times: at 64k a quarter of the channels.
        [*_shapes(d=256, n=32)[:3], {"b": 2, "t": 65536, "d": 64, "n": 32}],
        {"b": 2, "t": 64, "d": 8, "n": 4},
    ),
    # The size of the other rows of this family, and one whose matrix products take most of the time.
    "s5": (
        s5_row,
        [*_shapes(d=256, n=32), {"b": 8, "t": 4096, "d": 256, "n": 128}],
        {"b": 2, "t": 64, "d": 8, "n": 4},
    ),
    "lru": (lru_row, _shapes(d=256, n=128), {"b": 2, "t": 64, "d": 8, "n": 4}),
    "dplr-kernel": (
        dplr_kernel_row,
        [{"d": 256, "n": 32, "length": length} for length in (1024, 4096, 16384)],
        {"d": 4, "n": 4, "length": 64},
    ),
    "s4d-length": (s4d_length_row, [{"tokens": 65536, "d": 256, "n": 32}], {"tokens": 64, "d": 8, "n": 4}),
    "s5-length": (s5_length_row, [{"tokens": 65536, "d": 256, "n": 128}], {"tokens": 64, "d": 8, "n": 4}),
}
"""name: (builder of contenders, the shapes measured, a tiny shape that shows that the row runs)."""
