"""The linear time-invariant engine: x' = A x + B u, y = C x + D u with A diagonal, cut into steps.

A member supplies ``system()``, ``step_size()`` and a discretization. Two shapes of system stand here: a bank
with one small system for each channel, and one state that all channels share.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hippodrome.mixers.base import Mixer
from hippodrome.ops import _pairs
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import DIAGONAL as DISCRETIZATIONS
from hippodrome.ops.discretize import Discrete
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

BLOCK = 1 << 22
"""Complex numbers that a block of a time-varying run may hold at once: 32 MiB in float32."""


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

    h: Float[Tensor, "b d n 2"]
    """Every mode's answer to the input itself, x / Bbar with the Bbar of dt = 1; in float32 or wider."""


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

    def modes(self) -> tuple[Discrete, Tensor, Tensor]:
        """One step of every mode, the weight C Bbar of its answer to the input, and D."""
        A, B, C, D = self.system()
        one = self.discretize(A, self.step_size()[:, None])
        return one, _pairs.times(C, _pairs.times(one.gain, B)), D

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the system is, without D: its first ``length`` values."""
        one, weight, _ = self.modes()
        return vandermonde(one.log_a, weight, length)

    def step(self, x_t: Token, state: BankState, *, dt_t: Tensor | None = None) -> tuple[Token, BankState]:
        """One token: x = Abar x + Bbar u, y = Re C x + D u, with h = x / Bbar as the state."""
        one, weight, D = self.modes()
        u = x_t.to(state.h.dtype)
        decay, inputs = self._vary(one, u, None if dt_t is None else dt_t.to(u.dtype))
        h = _pairs.times(decay, state.h) + inputs
        y = _pairs.times(weight, h)[..., 0].sum(-1) + D * u
        return self.readout(y.to(x_t.dtype)), BankState(h)

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
            one, weight, D = self.modes()
            h = None if state is None else state.h
            if dt is None:
                y, last = diagonal_lti(x, one.log_a, weight, h, resets, D)
            else:
                h = self.init_state(x.shape[0]).h if h is None else h
                y, last = self._scan(one, weight, D, x, h, resets, dt)
        return self.readout(y.to(x.dtype)), BankState(last)

    def _vary(self, one: Discrete, u: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        """Factor (..., d, n, 2) and input of each mode for u (..., d) with steps dt (...) times its own."""
        if dt is None:
            return _pairs.exp(one.log_a), torch.stack([u, torch.zeros_like(u)], -1)[..., None, :]
        log_a, gain = self.discretize(self.system().A, dt[..., None, None] * self.step_size()[:, None])
        return _pairs.exp(log_a), _pairs.over(gain, one.gain) * u[..., None, None]

    def _scan(
        self,
        one: Discrete,
        weight: Tensor,
        D: Tensor,
        x: Tensor,
        h: Tensor,
        resets: Tensor | None,
        dt: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The system with a step size of its own at each token, in blocks of time that bound the memory."""
        t = x.shape[1]
        length = max(1, BLOCK // (h.numel() // 2))
        outputs = []
        for start in range(0, t, length):
            part = slice(start, start + length)
            marks = None if resets is None else resets[:, part]
            arguments = (one.log_a, one.gain, weight, D, x[:, part], h, marks, dt[:, part])
            if torch.is_grad_enabled() and t > length:
                y, h = checkpoint(self._scan_block, *arguments, use_reentrant=False)
            else:
                y, h = self._scan_block(*arguments)
            outputs.append(y)
        return torch.cat(outputs, 1), h

    def _scan_block(
        self,
        log_a: Tensor,
        gain: Tensor,
        weight: Tensor,
        D: Tensor,
        x: Tensor,
        h: Tensor,
        resets: Tensor | None,
        dt: Tensor,
    ) -> tuple[Tensor, Tensor]:
        u = x.to(h.dtype)
        decay, inputs = self._vary(Discrete(log_a, gain), u, dt.to(h.dtype))
        states, last = linear_scan_complex(decay.flatten(2, 3), inputs.flatten(2, 3), h.flatten(1, 2), resets)
        y = _pairs.times(weight, states.view_as(inputs))[..., 0].sum(-1) + D * u
        return y, last.view_as(h)


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
