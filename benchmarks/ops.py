"""Rows of single operators: selective scan, diagonal time-invariant system, SSD, causal convolution."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import rivals
from benchmarks.measure import Contender, leaves
from hippodrome.ops import _pairs
from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import zoh
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.ssd import ssd

Builder = Callable[..., list[Contender]]


def _normal(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def selective_scan_row(b: int, t: int, d: int, n: int) -> list[Contender]:
    """Mamba's scan with step sizes, skip and readout; no gate, since the rivals have none in theirs."""
    normal = _normal(0)
    u, dt = normal(b, t, d), torch.exp(0.5 * normal(b, t, d) - 3)
    A = -torch.arange(1.0, n + 1).expand(d, n).clone()
    B, C, D = normal(b, t, n), normal(b, t, n), normal(d)
    mine = leaves(u, dt, A, B, C, D)
    flat = leaves(u, dt, A, B, C, D)
    turned = leaves(*(x.mT.contiguous() for x in (u, dt)), A, *(x.mT.contiguous() for x in (B, C)), D)
    return [
        Contender("hippodrome", lambda: selective_scan(*mine)[0], mine),
        Contender("accelerated-scan ref.scan", lambda: rivals.eager_selective_scan(*turned).mT, turned),
        Contender("mambapy pscan", lambda: rivals.mambapy_selective_scan(*flat), flat),
    ]


def diagonal_lti_row(b: int, t: int, d: int, n: int) -> list[Contender]:
    """An S4D layer from its parameters: discretization, the system, the skip; and the bare FFT convolution.

    The bare convolution is given its kernel, so it does less than the other two: it stands for the cost that
    a convolutional form cannot go below.
    """
    normal = _normal(0)
    u, D = normal(b, t, d), normal(d)
    log_decay = torch.full((d, n), 0.5).log()
    frequency = torch.pi * torch.arange(n, dtype=torch.float32).expand(d, n).clone()
    weight = normal(d, n, 2)
    log_dt = torch.linspace(-6.9, -2.3, d)
    mine = leaves(u, log_decay, frequency, weight, log_dt, D)
    book = leaves(u.mT.contiguous(), log_decay, frequency, torch.view_as_complex(weight), log_dt, D)
    bare = leaves(u.mT.contiguous(), normal(d, t) / t**0.5)

    def ours() -> Tensor:
        u, log_decay, frequency, weight, log_dt, D = mine
        A = torch.stack([-torch.exp(log_decay), frequency], -1)
        log_a, gain = zoh(A, torch.exp(log_dt)[:, None])
        return diagonal_lti(u, log_a, _pairs.times(weight, gain), skip=D)[0]

    return [
        Contender("hippodrome", ours, mine),
        Contender(
            "FFT convolution, kernel given", lambda: rivals.fft_convolution(*bare).mT, bare, floor=True
        ),
        Contender("textbook S4D", lambda: rivals.textbook_s4d(*book).mT, book),
    ]


def ssd_row(b: int, t: int, h: int, p: int, n: int) -> list[Contender]:
    """Mamba-2's scan with the skip, at the chunk of 64 that suits the rival best on a CPU, and attention."""
    normal = _normal(0)
    x, dt = normal(b, t, h, p), torch.exp(0.5 * normal(b, t, h) - 3)
    A = -torch.linspace(1.0, 16.0, h)
    B, C, D = normal(b, t, 1, n), normal(b, t, 1, n), normal(h)
    mine = leaves(x, dt, A, B, C, D)
    theirs = leaves(x, dt, A, B, C, D)
    heads = leaves(*(normal(b, h, t, p) for _ in range(3)))

    def attention() -> Tensor:
        return F.scaled_dot_product_attention(*heads, is_causal=True)

    return [
        Contender("hippodrome", lambda: ssd(*mine)[0], mine),
        Contender("transformers, chunk 64", lambda: rivals.transformers_ssd(*theirs), theirs),
        Contender("causal attention of the same width", attention, heads, same=False),
    ]


def causal_conv_row(b: int, t: int, d: int, w: int) -> list[Contender]:
    """The short depthwise convolution, without activation."""
    normal = _normal(0)
    x, weight, bias = normal(b, t, d), normal(d, w), normal(d)
    mine = leaves(x, weight, bias)
    turned = leaves(x.mT.contiguous(), weight, bias)
    shifted = leaves(x, weight, bias)
    return [
        Contender("hippodrome", lambda: causal_conv(*mine)[0], mine),
        Contender("F.conv1d", lambda: rivals.conv1d(*turned).mT, turned),
        Contender("unrolled shifts", lambda: rivals.unrolled_shifts(*shifted), shifted),
    ]


ROWS: dict[str, tuple[Builder, list[dict[str, int]], dict[str, int]]] = {
    "selective-scan": (
        selective_scan_row,
        [{"b": 1, "t": 1024, "d": 1536, "n": 16}],
        {"b": 1, "t": 32, "d": 16, "n": 4},
    ),
    "diagonal-lti": (
        diagonal_lti_row,
        # The textbook holds d x n x t complex numbers several times: at 64k a quarter of the channels.
        [
            *({"b": 8, "t": t, "d": 256, "n": 32} for t in (1024, 4096, 16384)),
            {"b": 2, "t": 65536, "d": 64, "n": 32},
        ],
        {"b": 2, "t": 64, "d": 8, "n": 4},
    ),
    "ssd": (
        ssd_row,
        [{"b": 1, "t": 2048, "h": 24, "p": 64, "n": 128}],
        {"b": 1, "t": 128, "h": 2, "p": 8, "n": 8},
    ),
    "causal-conv": (
        causal_conv_row,
        [{"b": 1, "t": 1024, "d": 1536, "w": 4}],
        {"b": 2, "t": 32, "d": 16, "w": 4},
    ),
}
"""name: (builder of contenders, the shapes measured, a tiny shape that shows that the row runs)."""
