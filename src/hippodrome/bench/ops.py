"""Rows of single operators beside rivals: scans, SSD, systems, matrix states, convolution, norm, loss."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.bench import rivals
from hippodrome.bench.row import Contender, Row, Where, leaves
from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.models._cross_entropy import linear_cross_entropy
from hippodrome.ops import _pairs
from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import zoh
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.ssd import ssd

BOTH_TYPES = ("float32", "bfloat16")
COPY = "a copy of as many bytes"
LONGEST_ATTENTION = 16384
"""Tokens beyond which attention, whose cost grows with their square, would take most of the row's time."""


def copy_floor(where: Where, forward: int, both: int) -> Contender:
    """What memory alone allows: a copy that reads and writes so many bytes in all."""

    def copier(total: int) -> Callable[[], Tensor]:
        source = torch.ones(max(1, total // 8), device=where.device)
        into = torch.empty_like(source)
        return lambda: into.copy_(source)

    return Contender(COPY, copier(forward), floor=True, both=copier(both))


def _mamba_inputs(where: Where, b: int, t: int, d: int, n: int) -> list[Tensor]:
    normal = where.normal()
    u, dt = normal(b, t, d), torch.exp(0.5 * normal(b, t, d) - 3)
    A = -torch.arange(1.0, n + 1, device=where.device).expand(d, n).clone()
    B, C, D = normal(b, t, n), normal(b, t, n), normal(d)
    u, dt, B, C = where.narrow(u, dt, B, C)
    return [u, dt, A, B, C, D]


def selective_scan_row(where: Where, b: int, t: int, d: int, n: int) -> list[Contender]:
    """Mamba's scan with step sizes, skip and readout; no gate, since the rivals have none in theirs."""
    u, dt, A, B, C, D = tensors = _mamba_inputs(where, b, t, d, n)
    mine, flat = leaves(*tensors), leaves(*tensors)
    turned = leaves(*(x.mT.contiguous() for x in (u, dt)), A, *(x.mT.contiguous() for x in (B, C)), D)
    found = [Contender("hippodrome", lambda: selective_scan(*mine)[0], mine)]
    if where.device.type == "cuda":
        if rivals.have("mamba-ssm"):
            theirs = Contender("mamba_ssm, CUDA", lambda: rivals.mamba_ssm_selective_scan(*turned).mT, turned)
            found.append(theirs)
        return found
    if rivals.have("accelerated-scan"):
        eager = Contender(
            "accelerated-scan ref.scan", lambda: rivals.eager_selective_scan(*turned).mT, turned
        )
        found.append(eager)
    if rivals.have("mambapy"):
        found.append(Contender("mambapy pscan", lambda: rivals.mambapy_selective_scan(*flat), flat))
    return found


def diagonal_lti_row(where: Where, b: int, t: int, d: int, n: int) -> list[Contender]:
    """An S4D layer from its parameters: discretization, the system, the skip; and the bare FFT convolution.

    The bare convolution is given its kernel, so it does less than the other two: it stands for the cost that
    a convolutional form cannot go below.
    """
    normal = where.normal()
    u, D = normal(b, t, d), normal(d)
    log_decay = torch.full((d, n), 0.5, device=where.device).log()
    frequency = (torch.pi * torch.arange(n, dtype=torch.float32, device=where.device)).expand(d, n).clone()
    weight = normal(d, n, 2)
    log_dt = torch.linspace(-6.9, -2.3, d, device=where.device)
    (u,) = where.narrow(u)
    mine = leaves(u, log_decay, frequency, weight, log_dt, D)
    turned = u.float().mT.contiguous()
    book = leaves(turned, log_decay, frequency, torch.view_as_complex(weight), log_dt, D)
    bare = leaves(turned, normal(d, t) / t**0.5)

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


def ssd_row(where: Where, b: int, t: int, h: int, p: int, n: int) -> list[Contender]:
    """Mamba-2's scan with the skip, at the chunk of 64 that suits the rival best on a CPU, and attention."""
    normal = where.normal()
    x, dt = normal(b, t, h, p), torch.exp(0.5 * normal(b, t, h) - 3)
    A = -torch.linspace(1.0, 16.0, h, device=where.device)
    B, C, D = normal(b, t, 1, n), normal(b, t, 1, n), normal(h)
    x, B, C = where.narrow(x, B, C)
    heads = leaves(*where.narrow(*(normal(b, h, min(t, LONGEST_ATTENTION), p) for _ in range(3))))

    def rival(name: str, form: Callable[..., Tensor]) -> Contender:
        theirs = leaves(x, dt, A, B, C, D)
        return Contender(name, lambda: form(*theirs), theirs)

    found = [rival("hippodrome", lambda *tensors: ssd(*tensors)[0])]
    if where.device.type == "cuda":
        if rivals.have("mamba-ssm"):
            found.append(rival("mamba_ssm, Triton", rivals.mamba_ssm_ssd))
        if rivals.have("flash-linear-attention"):
            found.append(rival("flash-linear-attention, Triton", rivals.fla_ssd))
    else:
        if rivals.have("transformers"):
            found.append(rival("transformers, chunk 64", rivals.transformers_ssd))
        if rivals.have("flash-linear-attention") and where.dtype == torch.float32:
            found.append(rival("flash-linear-attention, PyTorch", rivals.fla_naive_ssd))
    if t <= LONGEST_ATTENTION:
        q, k, v = heads
        attention = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
        found.append(Contender("causal attention of the same width", attention, heads, same=False))
    return found


def causal_conv_row(where: Where, b: int, t: int, d: int, w: int) -> list[Contender]:
    """The short depthwise convolution, without activation."""
    normal = where.normal()
    x, weight, bias = normal(b, t, d), normal(d, w), normal(d)
    (x,) = where.narrow(x)
    mine, theirs = leaves(x, weight, bias), where.narrow(x.mT.contiguous(), weight, bias)
    turned, shifted = leaves(*theirs), leaves(x, *where.narrow(weight, bias))
    return [
        Contender("hippodrome", lambda: causal_conv(*mine)[0], mine),
        copy_floor(where, 2 * x.nbytes, 5 * x.nbytes),
        Contender("F.conv1d", lambda: rivals.conv1d(*turned).mT, turned),
        Contender("unrolled shifts", lambda: rivals.unrolled_shifts(*shifted), shifted),
    ]


def rms_norm_row(where: Where, b: int, t: int, d: int) -> list[Contender]:
    """Gate and norm before the last map of Mamba-2."""
    normal = where.normal()
    y, z = where.narrow(normal(b, t, d), normal(b, t, d))
    norm = GatedRMSNorm(d).to(where.device)
    mine, theirs = leaves(y, z), leaves(y, z, norm.weight)
    return [
        Contender("hippodrome", lambda: norm(*mine), [*mine, norm.weight]),
        copy_floor(where, 3 * y.nbytes, 8 * y.nbytes),
        Contender("written in PyTorch", lambda: rivals.plain_gated_norm(*theirs), theirs),
    ]


def cross_entropy_row(where: Where, rows: int, d: int, vocab: int) -> list[Contender]:
    """The head of a language model and its loss."""
    normal = where.normal()
    x, weight = where.narrow(normal(rows, d), 0.02 * normal(vocab, d))
    targets = torch.arange(rows, device=where.device) * 7919 % vocab
    mine, theirs = leaves(x, weight), leaves(x, weight)
    grad = torch.empty(rows, vocab, dtype=where.dtype, device=where.device).fill_(1e-3)

    def products() -> Tensor:
        y = x @ weight.T
        torch.mm(grad, weight)
        torch.mm(grad.T, x)
        return y

    return [
        Contender("hippodrome", lambda: linear_cross_entropy(mine[0], mine[1], targets), mine),
        Contender("its matrix products alone", lambda: x @ weight.T, floor=True, both=products),
        Contender(
            "F.linear, F.cross_entropy",
            lambda: F.cross_entropy(F.linear(*theirs).float(), targets),
            theirs,
        ),
    ]


def example_tensors(op: str, where: Where, **shape: Any) -> list[Any]:
    """An operator's own example in the row's dtype, with no option turned on, no state and no reset.

    Whatever has no rows and no time (rates, taps, weights) stays in float32.
    """
    examples = import_module(f"hippodrome.ops.{op}.examples")
    takes = signature(examples.inputs).parameters
    plain = {k: False for k in ("softplus", "with_state", "with_resets") if k in takes}
    found = examples.inputs(**shape, **plain, dtype=torch.float32)
    moved = [x.to(where.device) if isinstance(x, Tensor) else x for x in found]
    if where.dtype == torch.float32:
        return moved
    axes = max((x for x in moved if isinstance(x, Tensor)), key=Tensor.numel).shape[:2]
    return [x.to(where.dtype) if isinstance(x, Tensor) and x.shape[:2] == axes else x for x in moved]


def trained(tensors: list[Any]) -> list[Any]:
    """The same with gradients wanted of every floating tensor."""
    return [leaves(x)[0] if isinstance(x, Tensor) and x.is_floating_point() else x for x in tensors]


def fill(tensors: list[Any]) -> list[Tensor]:
    """Those that take gradients."""
    return [x for x in tensors if isinstance(x, Tensor) and x.requires_grad]


def first(answer: Any) -> Tensor:
    """What a door returns before its state."""
    output: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return output


def output(door: Callable[..., Any], tensors: list[Any]) -> Tensor:
    """The outputs of a call of a door."""
    return first(door(*tensors))


def generic(op: str, name: str, where: Where, shape: dict[str, Any], backend: str | None = None) -> Contender:
    """A door called on its own example, by the backend that it chooses or by one forced."""
    door = getattr(import_module(f"hippodrome.ops.{op}"), op)
    mine = trained(example_tensors(op, where, **shape))
    return Contender(name, lambda: first(door(*mine, backend=backend)), fill(mine))


def linear_scan_row(where: Where, op: str, **shape: int) -> list[Contender]:
    """h = a h + x, real or complex: bound by the bytes of a, x and h, and twice those with gradients."""
    tensors = example_tensors(op, where, **shape)
    a, x = tensors[:2]
    found = [
        generic(op, "hippodrome", where, shape),
        # Backward reads the gradient, a and h, and writes the gradients of a and x.
        copy_floor(where, a.nbytes + 2 * x.nbytes, 3 * a.nbytes + 5 * x.nbytes),
    ]
    if where.device.type == "cpu":
        found.append(generic(op, "our PyTorch form", where, shape, "torch"))
        if op == "linear_scan" and a.dim() == 3 and rivals.have("accelerated-scan"):
            from accelerated_scan.ref import scan

            turned = leaves(a.mT.contiguous(), x.mT.contiguous())
            found.append(Contender("accelerated-scan ref.scan", lambda: scan(*turned).mT, turned))
    return found


def matrix_state_row(where: Where, op: str, **shape: int) -> list[Contender]:
    """An operator with a matrix state on its own example, beside its form in plain PyTorch."""
    found = [
        generic(op, "hippodrome", where, shape),
        generic(op, "our PyTorch form", where, shape, "torch"),
    ]
    whole = op == "delta_rule" and where.dtype == torch.float32 and where.device.type == "cpu"
    if whole and rivals.have("flash-linear-attention"):
        theirs = trained(example_tensors(op, where, **shape)[:5])
        name = "flash-linear-attention, PyTorch"
        found.append(Contender(name, lambda: rivals.fla_naive_delta_rule(*theirs), fill(theirs)))
    return found


def _linear_scan(where: Where, **shape: int) -> list[Contender]:
    return linear_scan_row(where, "linear_scan", **shape)


def _linear_scan_complex(where: Where, **shape: int) -> list[Contender]:
    return linear_scan_row(where, "linear_scan_complex", **shape)


def _gla(where: Where, **shape: int) -> list[Contender]:
    return matrix_state_row(where, "gla", **shape)


def _delta_rule(where: Where, **shape: int) -> list[Contender]:
    return matrix_state_row(where, "delta_rule", **shape)


def matrix_state_rows() -> list[Row]:
    """The operators with a matrix state that this version has."""
    found = []
    for op, title, build, packages in (
        ("gla", "Gated linear attention", _gla, ()),
        ("delta_rule", "The gated delta rule", _delta_rule, ("flash-linear-attention",)),
    ):
        if find_spec(f"hippodrome.ops.{op}") is not None:
            shapes = import_module(f"hippodrome.ops.{op}.examples").BENCH_SHAPES
            note = "Our form in plain PyTorch, in chunks, stands beside it" + (
                ", and that of a package." if packages else "; no package does it fast on a CPU."
            )
            name, tiny = op.replace("_", "-"), {"b": 1, "t": 64}
            found.append(
                Row(name, "op", title, note, shapes, tiny, build, dtypes=BOTH_TYPES, rivals=packages)
            )
    return found


ROWS = (
    Row(
        "selective-scan",
        "op",
        "Selective scan (Mamba)",
        "Rivals: the eager scan of `accelerated-scan` and the one of `mambapy`, each with the discretization "
        "before it and the readout after it that our operator does inside. No gate on either side.",
        [{"b": 1, "t": 1024, "d": 1536, "n": 16}],
        {"b": 1, "t": 32, "d": 16, "n": 4},
        selective_scan_row,
        dtypes=BOTH_TYPES,
        rivals=("accelerated-scan", "mambapy"),
    ),
    Row(
        "diagonal-lti",
        "op",
        "Diagonal time-invariant system (S4D)",
        "All from the layer's parameters, so that the gradient of the kernel is in the backward pass, save "
        "the bare FFT convolution, which is given its kernel: it is what a convolutional form cannot go "
        "below. The textbook form builds the Vandermonde kernel, then convolves. At 64k there are two rows "
        "and 64 channels, for all alike: the textbook holds d x n x t complex numbers several times.",
        [
            *({"b": 8, "t": t, "d": 256, "n": 32} for t in (1024, 4096, 16384)),
            {"b": 2, "t": 65536, "d": 64, "n": 32},
        ],
        {"b": 2, "t": 64, "d": 8, "n": 4},
        diagonal_lti_row,
    ),
    Row(
        "ssd",
        "op",
        "SSD (Mamba-2)",
        "Rivals: the chunked form that `transformers` runs where no CUDA kernel fits, at the chunk of 64 "
        "that suits it best on a CPU (it widens its inputs to float32), and the one of "
        "`flash-linear-attention` in plain PyTorch. Attention of the same width stands beside them for "
        "scale.",
        [{"b": 1, "t": 2048, "h": 24, "p": 64, "n": 128}],
        {"b": 1, "t": 128, "h": 2, "p": 8, "n": 8},
        ssd_row,
        dtypes=BOTH_TYPES,
        rivals=("transformers", "flash-linear-attention"),
    ),
    Row(
        "linear-scan",
        "op",
        "Linear scan, real",
        "Bound by memory: the floor copies as many bytes as the scan must read and write.",
        [{"b": 8, "t": 1024, "d": 1536}, {"b": 8, "t": 4096, "d": 1536}],
        {"b": 2, "t": 32, "d": 16},
        _linear_scan,
        dtypes=BOTH_TYPES,
        rivals=("accelerated-scan",),
    ),
    Row(
        "linear-scan-complex",
        "op",
        "Linear scan, complex",
        "Bound by memory: the floor copies as many bytes as the scan must read and write.",
        [{"b": 8, "t": 1024, "d": 1024}],
        {"b": 2, "t": 32, "d": 16},
        _linear_scan_complex,
    ),
    Row(
        "causal-conv",
        "op",
        "Causal depthwise convolution",
        "Rivals: `F.conv1d` with one group a channel, in its own layout, and shifted copies. The floor "
        "copies as many bytes as must be read and written.",
        [{"b": 1, "t": 1024, "d": 1536, "w": 4}],
        {"b": 2, "t": 32, "d": 16, "w": 4},
        causal_conv_row,
        dtypes=BOTH_TYPES,
    ),
    Row(
        "rms-norm-gated",
        "op",
        "Gate and root-mean-square norm",
        "The floor copies as many bytes as must be read and written.",
        [{"b": 1, "t": 1024, "d": 1536}],
        {"b": 2, "t": 32, "d": 16},
        rms_norm_row,
        dtypes=BOTH_TYPES,
    ),
    Row(
        "cross-entropy",
        "op",
        "Head and cross-entropy of a language model",
        "Ours never holds all logits at once. The floor is the product with the head, and the two of its "
        "backward pass.",
        [{"rows": 1024, "d": 768, "vocab": 50280}],
        {"rows": 16, "d": 8, "vocab": 64},
        cross_entropy_row,
        dtypes=BOTH_TYPES,
    ),
)
"""The rows whose operators every version has."""
