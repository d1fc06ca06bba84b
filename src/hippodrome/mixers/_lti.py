"""The linear time-invariant engine: x' = A x + B u, y = C x + D u with A diagonal, cut into steps.

A member supplies ``system()``, ``step_size()`` and a discretization. Two shapes of system stand here: a bank
with one small system for each channel, and one state that all channels share.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, check_word
from hippodrome.ops import _pairs
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import DIAGONAL as DISCRETIZATIONS
from hippodrome.ops.discretize import Discrete
from hippodrome.ops.linear import linear
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

CACHED = 1 << 18
"""Complex numbers of a block that is to stay in a processor's cache: 2 MiB in float32."""


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


class BankTables(NamedTuple):
    """What a bank needs at every token, made from its system."""

    A: Float[Tensor, "d n 2"]
    size: Float[Tensor, "d 1"]
    log_a: Float[Tensor, "d n 2"]
    gain: Float[Tensor, "d n 2"]
    factor: Float[Tensor, "d n 2"]
    """exp(log_a), one step."""
    weight: Float[Tensor, "d n 2"]
    """C Bbar: the weight of each mode's answer to the input."""
    read: Float[Tensor, "d n 2"]
    """Its conjugate: the sum of read * h over modes and parts is the sum of Re w h."""
    D: Float[Tensor, "d"]


class SharedTables(NamedTuple):
    """What a shared state needs at every token; the pairs of a mode stand side by side."""

    A: Float[Tensor, "n 2"]
    size: Float[Tensor, "*sizes"]
    factor: Float[Tensor, "n 2"]
    """exp(log_a), one step."""
    B: Float[Tensor, "d 2n"]
    """u B is what each mode takes in before the step's gain."""
    Bbar: Float[Tensor, "d 2n"]
    """B times the gain of one step."""
    C: Float[Tensor, "2n d"]
    """x C is Re C x: rows Re C and -Im C in turn."""
    D: Float[Tensor, "d"]


class LTI(Mixer):
    """What both shapes share: a system, a step size, a discretization by name, and an output map."""

    discretization: str

    def __init__(self) -> None:
        super().__init__()
        self._memo: Memo = Memo()

    @abstractmethod
    def system(self) -> System:
        """The continuous system, made from the parameters, in float32 or wider."""

    @abstractmethod
    def step_size(self) -> Float[Tensor, "*sizes"]:
        """Positive step sizes: (d) of a bank, (n) of a shared state."""

    @abstractmethod
    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """What follows the system on each token alone."""

    def settings(self) -> tuple[object, ...]:
        """What the discretized system depends on apart from parameters: values that may change."""
        return (self.discretization,)

    def discretize(self, A: Tensor, step: Tensor) -> Discrete:
        """One step of the poles A, (..., 2), by this mixer's rule."""
        return DISCRETIZATIONS[self.discretization](A, step)

    def choose_discretization(self, name: str) -> None:
        """Set the rule by name.

        Raises:
            ValueError: there is no such rule.
        """
        check_word(type(self).__name__, "discretization", name, DISCRETIZATIONS)
        self.discretization = name


class Bank(LTI):
    """One single-input single-output system for every channel; ``dt`` multiplies its step size, per token."""

    accepts_dt = True
    reversed_from = "offset"

    def init_state(self, batch: int, max_length: int | None = None) -> BankState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        A = self._tables().A
        return BankState(A.new_zeros(batch, *A.shape))

    def modes(self) -> tuple[Discrete, Tensor, Tensor]:
        """One step of every mode, the weight C Bbar of its answer to the input, and D."""
        tables = self._tables()
        return Discrete(tables.log_a, tables.gain), tables.weight, tables.D

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the system is, without D: its first ``length`` values."""
        one, weight, _ = self.modes()
        return vandermonde(one.log_a, weight, length)

    def step(self, x_t: Token, state: BankState, *, dt_t: Tensor | None = None) -> tuple[Token, BankState]:
        """One token: x = Abar x + Bbar u, y = Re C x + D u, with h = x / Bbar as the state."""
        tables = self._tables()
        u = x_t.to(state.h.dtype)
        if dt_t is None:
            h = _product(tables.factor, state.h)
            h[..., 0] += u[..., None]
        else:
            decay, inputs = self._vary(tables, u, dt_t.to(u.dtype))
            h = _product(decay, state.h) + inputs
        y = torch.addcmul((tables.read * h).sum((-1, -2)), tables.D, u)
        return self.readout(y.to(x_t.dtype)), BankState(h)

    def forward(
        self,
        x: Sequence,
        state: BankState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, BankState]:
        """Many tokens: the time-invariant system in chunks; with a ``dt`` that varies a scan over blocks."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            tables = self._tables()
            h = None if state is None else state.h
            if dt is None:
                y, last = diagonal_lti(x, tables.log_a, tables.weight, h, resets, tables.D)
            elif _one_size(dt):
                log_a, gain = self.discretize(tables.A, dt[0, 0].to(tables.A.dtype) * tables.size)
                ratio = _pairs.over(gain, tables.gain)
                h = None if h is None else _pairs.over(h, ratio)
                weight = _pairs.times(tables.weight, ratio)
                y, last = diagonal_lti(x, log_a, weight, h, resets, tables.D)
                last = _pairs.times(last, ratio)
            else:
                h = tables.A.new_zeros(x.shape[0], *tables.A.shape) if h is None else h

                def block(h: Tensor, x: Tensor, resets: Tensor | None, dt: Tensor) -> tuple[Tensor, Tensor]:
                    return self._scan(tables, h, x, resets, dt)

                y, last = run_in_blocks(block, steps_within(h.numel() // 2), h, x, resets, dt)
        return self.readout(y.to(x.dtype)), BankState(last)

    def _tables(self) -> BankTables:
        return self._memo.get(self, self._make_tables, *self.settings())

    def _make_tables(self) -> BankTables:
        A, B, C, D = self.system()
        size = self.step_size()[:, None]
        log_a, gain = self.discretize(A, size)
        weight = _pairs.times(C, _pairs.times(gain, B))
        read = torch.stack([weight[..., 0], -weight[..., 1]], -1)
        return BankTables(A, size, log_a, gain, _pairs.exp(log_a), weight, read, D)

    def _vary(self, tables: BankTables, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Factor (..., d, n, 2) and input of each mode for u (..., d) with steps dt (...) times its own."""
        log_a, gain = self.discretize(tables.A, dt[..., None, None] * tables.size)
        return _pairs.exp(log_a), _pairs.over(gain, tables.gain) * u[..., None, None]

    def _scan(
        self, tables: BankTables, h: Tensor, x: Tensor, resets: Tensor | None, dt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The system with a step size of its own at each token."""
        u = x.to(h.dtype)
        decay, inputs = self._vary(tables, u, dt.to(h.dtype))
        states, last = linear_scan_complex(decay.flatten(2, 3), inputs.flatten(2, 3), h.flatten(1, 2), resets)
        y = (tables.read * states.view_as(inputs)).sum((-1, -2))
        return torch.addcmul(y, tables.D, u), last.view_as(h)


def _one_size(dt: Tensor) -> bool:
    """Whether all steps are alike, so that the system is time-invariant, where a look costs nothing."""
    looks = dt.is_cpu and not dt.requires_grad and not torch.compiler.is_compiling()
    return looks and bool((dt == dt[0, 0]).all())


class Shared(LTI):
    """One state that all channels write to and read from. A member says whether ``dt`` means something."""

    def init_state(self, batch: int, max_length: int | None = None) -> SharedState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        A = self._tables().A
        return SharedState(A.new_zeros(batch, *A.shape))

    def step(
        self, x_t: Token, state: SharedState, *, dt_t: Tensor | None = None
    ) -> tuple[Token, SharedState]:
        """One token: x = Abar x + Bbar u, y = Re C x + D u."""
        self.refuse_dt(dt_t)
        with torch.autocast(x_t.device.type, enabled=False):
            tables = self._tables()
            u = x_t.to(state.x.dtype)
            if dt_t is None:
                carried = _product(tables.factor, state.x).flatten(-2)
                x = torch.addmm(carried, u, tables.Bbar).unflatten(-1, (-1, 2))
            else:
                decay, inputs = self._vary(tables, u, dt_t.to(u.dtype))
                x = _product(decay, state.x) + inputs
            y = torch.addmm(tables.D * u, x.flatten(-2), tables.C)
        return self.readout(y.to(x_t.dtype)), SharedState(x)

    def forward(
        self,
        x: Sequence,
        state: SharedState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, SharedState]:
        """Many tokens: products with B and C, and a scan of the state between them.

        A reset drops the state before its token is taken in, inside the scan, so that rows which hold
        several episodes need no cutting.
        """
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            tables = self._tables()
            h = tables.A.new_zeros(x.shape[0], *tables.A.shape) if state is None else state.x

        def scan(h: Tensor, x: Tensor, resets: Tensor | None, dt: Tensor | None) -> tuple[Tensor, Tensor]:
            return self._scan(tables, h, x, resets, dt)

        def tokens(h: Tensor, x: Tensor, resets: Tensor | None, dt: Tensor | None) -> tuple[Tensor, Tensor]:
            y, last = scan(h, x, resets, dt)
            return self.readout(y.to(x.dtype)), last

        row = h.numel() // 2
        if x.is_cpu and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            # Nothing is kept for a backward pass: each block goes all the way while it is in the cache.
            y, last = run_in_blocks(tokens, max(16, CACHED // max(1, row)), h, x, resets, dt)
            return y, SharedState(last)
        length = x.shape[1] if dt is None else steps_within(row)
        y, last = run_in_blocks(scan, length, h, x, resets, dt)
        return self.readout(y.to(x.dtype)), SharedState(last)

    def _tables(self) -> SharedTables:
        return self._memo.get(self, self._make_tables, *self.settings())

    def _make_tables(self) -> SharedTables:
        A, B, C, D = self.system()
        size = self.step_size()
        log_a, gain = self.discretize(A, size)
        Bbar = _pairs.times(gain[:, None], B)
        columns = torch.stack([C[..., 0], -C[..., 1]], -1).flatten(1)
        B, Bbar = (b.transpose(0, 1).flatten(1) for b in (B, Bbar))
        return SharedTables(A, size, _pairs.exp(log_a), B, Bbar, columns.T.contiguous(), D)

    def _vary(self, tables: SharedTables, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Factor (..., n, 2) and input of each mode for u (..., d) with steps dt (...) times its own."""
        log_a, gain = self.discretize(tables.A, dt[..., None] * tables.size)
        return _pairs.exp(log_a), _pairs.times(gain, linear(u, tables.B.mT).unflatten(-1, (-1, 2)))

    def _scan(
        self, tables: SharedTables, h: Tensor, x: Tensor, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and last state, with steps of its own at each token where there is a ``dt``."""
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(h.dtype)
            if dt is None:
                decay, inputs = tables.factor, linear(u, tables.Bbar.mT).unflatten(-1, (-1, 2))
            else:
                decay, inputs = self._vary(tables, u, dt.to(h.dtype))
            states, last = linear_scan_complex(decay, inputs, h, resets)
            return torch.addcmul(linear(states.flatten(-2), tables.C.mT), u, tables.D), last


def _product(a: Tensor, h: Tensor) -> Tensor:
    """The complex product a h, both (..., 2): one pass where complex numbers may be used."""
    if torch.compiler.is_compiling():
        return _pairs.times(a, h)
    a, h = torch.view_as_complex(a.contiguous()), torch.view_as_complex(h.contiguous())
    return torch.view_as_real(a * h)
