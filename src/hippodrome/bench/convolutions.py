"""Rows of long convolutions: beside the bare Fourier convolution, and the learnable block transform."""

import torch
from torch import Tensor

from hippodrome.bench import rivals
from hippodrome.bench.row import Contender, Row, Where, leaves
from hippodrome.config import find
from hippodrome.layers.butterfly import Butterfly
from hippodrome.ops.block_conv import block_conv


def long_conv_row(where: Where, b: int, t: int, d: int) -> list[Contender]:
    """Layers without their output map, kernel and skip included; the bare convolution is given its kernel."""
    normal = where.normal(1)
    x, taps = normal(b, t, d), normal(d, t) / t**0.5
    bare, plain = leaves(x.mT.contiguous(), taps), leaves(x, taps)

    def layer(kind: str, title: str) -> Contender:
        torch.manual_seed(0)
        mixer = find("mixers", kind)(d, max_length=t, gated=False).to(where.device)
        (mine,) = leaves(x)

        def run() -> Tensor:
            y: Tensor = mixer(mine)[0]
            return y

        return Contender(title, run, [mine, *mixer.parameters()], same=False)

    return [
        Contender("hippodrome, the operator", lambda: block_conv(*plain)[0], plain),
        layer("long_conv", "hippodrome, long_conv"),
        layer("sgconv", "hippodrome, sgconv"),
        Contender("our PyTorch form", lambda: block_conv(*plain, backend="torch")[0], plain),
        Contender(
            "FFT convolution, kernel given", lambda: rivals.fft_convolution(*bare).mT, bare, floor=True
        ),
    ]


def block_fft_row(where: Where, b: int, n: int, d: int) -> list[Contender]:
    """The learnable transform of n points with its first values, along time, beside the library's."""
    (x,) = leaves(where.normal(1)(b, n, d))
    layer = Butterfly(n).to(where.device)
    (theirs,) = leaves(x)
    return [
        Contender("hippodrome", lambda: layer(x), [x, *layer.parameters()]),
        Contender("torch.fft.fft", lambda: torch.view_as_real(torch.fft.fft(theirs, dim=1)), [theirs]),
    ]


ROWS = (
    Row(
        "long-conv",
        "layer",
        "Long convolutions beside the bare FFT convolution",
        "Layers of a kernel as long as the input, from their parameters, with the skip and without the "
        "output map. The bare FFT convolution is given its kernel and its input time innermost; ours come "
        "as (b, t, d).",
        [{"b": 8, "t": t, "d": 256} for t in (1024, 4096, 16384)],
        {"b": 2, "t": 64, "d": 8},
        long_conv_row,
    ),
    Row(
        "block-fft",
        "layer",
        "The learnable block Fourier transform",
        "Blocks of at most 16 points as matrix products, with the gradient of their matrices; beside it the "
        "Fourier transform of the library, which learns nothing.",
        [{"b": 8, "n": n, "d": 64} for n in (1024, 4096)],
        {"b": 2, "n": 64, "d": 8},
        block_fft_row,
    ),
)
"""The rows of convolutions."""
