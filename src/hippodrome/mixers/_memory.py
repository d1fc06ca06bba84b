"""HiPPO memories with fixed matrices: what one step of each does, and scans of steps that vary along time.

A memory holds r inputs u apart, a state c (r, n) of n weights each, and advances them alike:
c = Abar c + Bbar u. ``matrices`` says Abar and Bbar of steps that took ``dt`` and ended ``elapsed`` after the
first one began.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hippodrome.inits import hippo
from hippodrome.ops.dense_scan import dense_scan
from hippodrome.ops.discretize import DENSE
from hippodrome.ops.linear_scan import linear_scan

BLOCK = 1 << 22
"""Numbers that the matrices of a block of time may hold at once: 16 MiB in float32."""

Matrices = tuple[Float[Tensor, "*steps n n"], Float[Tensor, "*steps n"]]


class Fixed(nn.Module):
    """A tensor that keeps its float64 digits and moves with the module that holds it.

    Its bits are held as whole numbers, for a cast of the module rounds every floating buffer, and a HiPPO
    matrix rounded to bfloat16 is another system. It follows from constructor arguments, so no state_dict
    holds it.
    """

    bits: Tensor

    def __init__(self, value: Float[Tensor, "*sizes"]) -> None:
        super().__init__()
        self.register_buffer("bits", value.double().contiguous().view(torch.int64), persistent=False)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "*sizes"]:
        """The tensor in a dtype."""
        return self.bits.view(torch.float64).to(dtype)


class Scaled(nn.Module):
    """LegS: c' = (A c + B u) / t, the weights of all of the past, which has no time scale of its own.

    (Gu, Dao, Ermon, Rudra, Ré 2020, arXiv 2008.07669, theorem 2.) One step depends on dt / t alone, 1/k at
    step k of even ones. The Euler rules and "bilinear" take dt / t as the step of the system (A, B), "zoh"
    log(1 + dt / t) as published, "exact" log(t / (t - dt)), the solution itself for an input constant over
    each step.

    Args:
        n: weights of each input.
        discretization: "forward_euler", "backward_euler", "bilinear", "zoh" or "exact".
        start: "first" takes the past before the first input u to be u, so c = (u, 0, ...) after it, as the
            published cell does; "zero" starts from c = 0. The exact solution forgets how it starts.

    Raises:
        ValueError: an unknown word.
    """

    def __init__(self, n: int, discretization: str, start: str = "first") -> None:
        super().__init__()
        _expect("discretization", discretization, [*DENSE, "exact"])
        _expect("start", start, ["first", "zero"])
        self.discretization, self.start = discretization, start
        A, B = hippo.legs(n)
        self.A, self.B = Fixed(A), Fixed(B)

    def matrices(self, dt: Float[Tensor, "*steps"], elapsed: Float[Tensor, "*steps"]) -> Matrices:
        """Abar and Bbar of each step."""
        A, B = self.A(dt.dtype), self.B(dt.dtype)
        ratio = dt / elapsed
        first = ratio >= 1
        rule = DENSE.get(self.discretization, DENSE["zoh"])
        size = ratio
        if self.discretization == "zoh":
            size = torch.log1p(ratio)
        elif self.discretization == "exact":
            size = -torch.log1p(-torch.where(first, 0.0, ratio))
        Abar, Bbar = rule(A, B[:, None], size)
        Bbar = Bbar[..., 0]
        if self.start == "first" or self.discretization == "exact":
            Abar = torch.where(first[..., None, None], 0.0, Abar)
            Bbar = torch.where(first[..., None], (torch.arange(B.shape[0], device=B.device) == 0).to(B), Bbar)
        return Abar, Bbar


class Invariant(nn.Module):
    """x' = A x + B u with constant matrices, given for a step of 1.

    Args:
        A: (n, n).
        B: (n).
        discretization: "zoh", "bilinear", "forward_euler" or "backward_euler".

    Raises:
        ValueError: there is no such rule.
    """

    def __init__(self, A: Float[Tensor, "n n"], B: Float[Tensor, "n"], discretization: str) -> None:
        super().__init__()
        _expect("discretization", discretization, list(DENSE))
        self.discretization = discretization
        self.A, self.B = Fixed(A), Fixed(B)
        Abar, Bbar = DENSE[discretization](A, B[:, None], torch.ones_like(B[0]))
        self.Abar, self.Bbar = Fixed(Abar), Fixed(Bbar[:, 0])

    def constant(self, dtype: torch.dtype) -> Matrices:
        """Abar and Bbar of a step of 1."""
        return self.Abar(dtype), self.Bbar(dtype)

    def matrices(self, dt: Float[Tensor, "*steps"], elapsed: Tensor | None = None) -> Matrices:
        """Abar and Bbar of each step; ``elapsed`` changes nothing."""
        Abar, Bbar = DENSE[self.discretization](self.A(dt.dtype), self.B(dt.dtype)[:, None], dt)
        return Abar, Bbar[..., 0]


def elapsed_times(
    dt: Float[Tensor, "b t"], elapsed: Float[Tensor, "b"] | None, resets: Tensor | None
) -> Float[Tensor, "b t"]:
    """The time since the last reset at the end of each step, from ``elapsed`` before the first."""
    start = None if elapsed is None else elapsed[:, None]
    return linear_scan(torch.ones_like(dt[0, :1]), dt[..., None], start, resets)[0][..., 0]


def blocks(length: int, numbers: int) -> list[slice]:
    """Stretches of time whose matrices, of so many numbers a step, stay below ``BLOCK``."""
    size = max(1, BLOCK // max(1, numbers))
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def scan_blocks(
    prepare: Callable[[slice], tuple[Tensor, Tensor]],
    parts: list[slice],
    state: Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``dense_scan`` over stretches of time, so that only one of them has its matrices in memory.

    ``prepare(part)`` makes A and v of a stretch; a backward pass makes them again.
    """

    def run(part: slice, state: Tensor) -> tuple[Tensor, Tensor]:
        return dense_scan(*prepare(part), state, None if resets is None else resets[:, part])

    outputs = []
    for part in parts:
        if torch.is_grad_enabled() and len(parts) > 1:
            states, state = checkpoint(run, part, state, use_reentrant=False)
        else:
            states, state = run(part, state)
        outputs.append(states)
    return torch.cat(outputs, 1), state


def write(c: Float[Tensor, "b r n"], u: Float[Tensor, "b r"], step: Matrices) -> Float[Tensor, "b r n"]:
    """One step: Abar c + Bbar u for each input, with matrices of every row or one for all."""
    Abar, Bbar = step
    return c @ Abar.mT + u[..., None] * Bbar[..., None, :]


def writes(u: Float[Tensor, "b t r"], Bbar: Float[Tensor, "*steps n"]) -> Float[Tensor, "b t r n"]:
    """Bbar u of every step."""
    return u[..., None] * Bbar[..., None, :]


def _expect(what: str, word: str, words: list[str]) -> None:
    if word not in words:
        raise ValueError(f"There is no {what} {word!r}; expected one of {', '.join(words)}.")
