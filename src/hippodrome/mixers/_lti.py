"""The linear time-invariant engine: x' = A x + B u, y = C x + D u with A diagonal, cut into steps.

A member supplies ``system()``, ``step_size()`` and a discretization. Two shapes of system stand here: a bank
with one small system for each channel, and one state that all channels share.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hippodrome.mixers.base import Mixer
from hippodrome.ops import _pairs
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import Discrete, bilinear, impulse, zoh
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

DISCRETIZATIONS: dict[str, Callable[[Tensor, Tensor], Discrete]] = {
    "zoh": zoh,
    "bilinear": bilinear,
    "impulse": impulse,
}
BLOCK = 1 << 22
"""Complex numbers that a block of a time-varying run may hold at once: 32 MiB of float32 pairs."""


class System(NamedTuple):
    """A continuous system with diagonal A, complex numbers as pairs.

    Of a bank: A, B, C (d, n, 2). Of a shared state: A (n, 2), B (n, d, 2), C (d, n, 2). Always D (d). The
    output is the real part of C x, so that the factor 2 of conjugate pairs is already in C.
    """

    A: Float[Tensor, "*modes 2"]
    B: Float[Tensor, "*inputs 2"]
    C: Float[Tensor, "*outputs 2"]
    D: Float[Tensor, "d"]


class BankState(NamedTuple):
    """The state of a bank of systems."""

    x: Float[Tensor, "b d n 2"]
    """State of every channel's own system, complex, in float32 or wider."""


class SharedState(NamedTuple):
    """The state of one system that all channels share."""

    x: Float[Tensor, "b n 2"]
    """Complex, in float32 or wider."""


class LTI(Mixer):
    """What both shapes share: a system, a step size, a discretization by name, and an output map."""

    discretization: str

    @abstractmethod
    def system(self) -> System:
        """The continuous system, made from the parameters, in float32 or wider."""

    @abstractmethod
    def step_size(self) -> Float[Tensor, "*sizes"]:
        """Positive step sizes: (d) of a bank, (n) of a shared state."""

    @abstractmethod
    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """What follows the system on each token alone."""

    def discretize(self, A: Tensor, step: Tensor) -> Discrete:
        """One step of the poles A, (..., 2), by this mixer's rule."""
        return DISCRETIZATIONS[self.discretization](A, step)

    def choose_discretization(self, name: str) -> None:
        """Set the rule by name.

        Raises:
            ValueError: there is no such rule.
        """
        if name not in DISCRETIZATIONS:
            raise ValueError(
                f"There is no discretization {name!r}; expected one of {', '.join(DISCRETIZATIONS)}."
            )
        self.discretization = name


class Bank(LTI):
    """One single-input single-output system for every channel; ``dt`` multiplies its step size, per token."""

    accepts_dt = True

    def init_state(self, batch: int, max_length: int | None = None) -> BankState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        A = self.system().A
        return BankState(A.new_zeros(batch, *A.shape))

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the system is, without D: its first ``length`` values."""
        system = self.system()
        log_a, gain = self.discretize(system.A, self.step_size()[:, None])
        return vandermonde(log_a, _pairs.times(system.C, _pairs.times(gain, system.B)), length)

    def step(self, x_t: Token, state: BankState, *, dt_t: Tensor | None = None) -> tuple[Token, BankState]:
        """One token: x = Abar x + Bbar u, y = Re C x + D u."""
        system, size = self.system(), self.step_size()
        u = x_t.to(state.x.dtype)
        if dt_t is not None:
            size = dt_t[:, None] * size
        log_a, gain = self.discretize(system.A, size[..., None])
        B = _pairs.times(gain, system.B)
        x = _pairs.times(_pairs.exp(log_a), state.x) + B * u[..., None, None]
        y = _pairs.times(system.C, x)[..., 0].sum(-1) + system.D * u
        return self.readout(y.to(x_t.dtype)), BankState(x)

    def forward(
        self,
        x: Sequence,
        state: BankState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, BankState]:
        """Many tokens: the time-invariant system in chunks; with ``dt`` a scan over blocks of time."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            system = self.system()
            if dt is None:
                log_a, gain = self.discretize(system.A, self.step_size()[:, None])
                B = _pairs.times(gain, system.B)
                h = None if state is None else state.x
                y, last = diagonal_lti(x, log_a, system.C, h, resets, B, system.D)
            else:
                h = self.init_state(x.shape[0]).x if state is None else state.x
                y, last = self._vary(system, x, h, resets, dt)
        return self.readout(y.to(x.dtype)), BankState(last)

    def _vary(
        self, system: System, x: Tensor, state: Tensor, resets: Tensor | None, dt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The system with a step size of its own at each token, in blocks of time that bound the memory."""
        b, t, _ = x.shape
        size = self.step_size()
        length = max(1, BLOCK // (b * system.A[..., 0].numel()))
        outputs = []
        for start in range(0, t, length):
            part = slice(start, start + length)
            marks = None if resets is None else resets[:, part]
            arguments = (*system, size, x[:, part], state, marks, dt[:, part])
            if torch.is_grad_enabled() and t > length:
                y, state = checkpoint(self._vary_block, *arguments, use_reentrant=False)
            else:
                y, state = self._vary_block(*arguments)
            outputs.append(y)
        return torch.cat(outputs, 1), state

    def _vary_block(
        self,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        size: Tensor,
        x: Tensor,
        state: Tensor,
        resets: Tensor | None,
        dt: Tensor,
    ) -> tuple[Tensor, Tensor]:
        u = x.to(state.dtype)
        steps = dt.to(state.dtype)[..., None] * size
        log_a, gain = self.discretize(A, steps[..., None])
        inputs = _pairs.times(gain, B) * u[..., None, None]
        h, last = linear_scan_complex(
            _pairs.exp(log_a).flatten(2, 3), inputs.flatten(2, 3), state.flatten(1, 2), resets
        )
        y = _pairs.times(C, h.view_as(inputs))[..., 0].sum(-1) + D * u
        return y, last.view_as(state)


class Shared(LTI):
    """One state that all channels write to and read from."""

    def init_state(self, batch: int, max_length: int | None = None) -> SharedState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        A = self.system().A
        return SharedState(A.new_zeros(batch, *A.shape))

    def step(
        self, x_t: Token, state: SharedState, *, dt_t: Tensor | None = None
    ) -> tuple[Token, SharedState]:
        """One token: x = Abar x + Bbar u, y = Re C x + D u."""
        self.refuse_dt(dt_t)
        with torch.autocast(x_t.device.type, enabled=False):
            system = self.system()
            log_a, gain = self.discretize(system.A, self.step_size())
            u = x_t.to(state.x.dtype)
            x = _pairs.times(_pairs.exp(log_a), state.x) + _pairs.times(gain, _write(u, system.B))
            y = _read(x, system.C) + system.D * u
        return self.readout(y.to(x_t.dtype)), SharedState(x)

    def forward(
        self,
        x: Sequence,
        state: SharedState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, SharedState]:
        """Many tokens: products with B and C, and a scan of the state between them."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            system = self.system()
            log_a, gain = self.discretize(system.A, self.step_size())
            u = x.to(system.A.dtype)
            inputs = _write(u, _pairs.times(gain[:, None], system.B))
            h = None if state is None else state.x
            states, last = linear_scan_complex(_pairs.exp(log_a), inputs, h, resets)
            y = _read(states, system.C) + system.D * u
        return self.readout(y.to(x.dtype)), SharedState(last)


def _write(u: Tensor, B: Tensor) -> Tensor:
    """B u as pairs: u (..., d) real, B (n, d, 2), to (..., n, 2)."""
    return (u @ B.movedim(-1, 1).flatten(0, 1).T).unflatten(-1, (-1, 2))


def _read(x: Tensor, C: Tensor) -> Tensor:
    """Re C x: x (..., n, 2), C (d, n, 2), to (..., d)."""
    sign = torch.tensor([1.0, -1.0], dtype=C.dtype, device=C.device)
    return x.flatten(-2) @ (C * sign).flatten(1).T
