"""DSS: diagonal state spaces with all complex states kept, one spectrum for all channels."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import spectrum, steps
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._lti import LTI, System
from hippodrome.mixers.base import ParameterGroup, check_word
from hippodrome.ops import _pairs
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.discretize import Discrete
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

EPS = 1e-7
"""Keeps the normalizer of the softmax form from dividing by zero: 1 / x is conj(x) / (|x|^2 + EPS)."""
VERSIONS = ("exp", "exp-re-im", "exp-no-scale", "clip", "softmax")


class State(NamedTuple):
    """What DSS carries from token to token."""

    h: Float[Tensor, "b d n 2"]
    """Every mode's answer to the input itself, a growing mode's divided by its growth so far; in float32 or
    wider."""
    elapsed: Float[Tensor, "b"]
    """Time since the first token, in steps of dt = 1; -1 before it. Growing modes alone look at it."""


class _Tables(NamedTuple):
    A: Tensor
    one: Discrete
    factor: Tensor
    """Of one step, without a growing mode's growth."""
    growth: Tensor | None
    """What a growing mode's logarithm grows by a step, (d, n); None where no mode may grow."""
    weight: Tensor
    """Of each mode's answer to the input; a growing mode's lacks exp(-growth (l_max - 1))."""
    D: Tensor


class DSS(LTI):
    """x' = lambda x + u in each mode, y = Re sum_n W_n x_n + D u for each channel, then GELU and a gate.

    Gupta, Gu, Berant 2022, "Diagonal state spaces are as effective as structured state spaces", arXiv
    2203.14343, section 3, equations of DSS_exp and DSS_softmax. All N complex states are kept and the real
    part is taken, with no factor 2. The poles lambda are shared by all channels, the step sizes are not.
    With z = dt lambda:

    - "exp": lambda = -exp(a) + i b and the kernel is Re sum W (e^z - 1) / lambda e^(zl), the zero-order hold
      with B = 1 and C = W. "exp-re-im" has exp(b) for b, "exp-no-scale" drops (e^z - 1) / lambda, "clip"
      holds Re lambda itself and cuts it off at 1e-4.
    - "softmax": lambda = a + i b is free, and the kernel is Re sum W / lambda softmax_l(zl) over the lags l
      below ``l_max``. For a stated l_max the normalizer is one constant of each mode, so this is a
      recurrence too; a kernel for another l_max is another function, not more or fewer values of this one.
      A call takes at most l_max tokens. A state streamed on beyond them goes on with the same recurrence:
      decaying modes do not notice, growing ones grow on.

    A mode with Re lambda > 0 (softmax) grows by e^Re(z) a step, to 1 over the normalizer at lag l_max - 1.
    Its state is kept divided by the growth so far, so nothing overflows in l_max tokens. Whether any mode
    grows is looked up once a call, and the fast form serves every call in which none does; a compiled graph
    cannot look and runs the scan.

    ``dt`` multiplies the step size; in the versions without the factor of the zero-order hold ("softmax" and
    "exp-no-scale") inputs are impulses, and the normalizer stays that of dt = 1.

    Args:
        d_model: channels in and out.
        d_state: complex numbers in each channel's state.
        version: one of "exp", "exp-re-im", "exp-no-scale", "clip", "softmax".
        l_max: lags that the softmax is taken over; "softmax" needs it, the others take none.
        separate_dt: real and imaginary part of lambda have a step size each.
        dt_min: smallest initial step size.
        dt_max: largest initial step size.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.

    Raises:
        ValueError: an unknown version, or l_max missing or out of place.
    """

    accepts_dt = True
    reversed_from = "offset"
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        version: str = "exp",
        l_max: int | None = None,
        separate_dt: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        gated: bool = True,
    ) -> None:
        super().__init__()
        check_word("DSS", "version", version, VERSIONS)
        if version == "softmax" and (l_max is None or l_max < 1):
            raise ValueError(
                f"The softmax of DSS is taken over l_max lags, at least 1; got l_max={l_max}. State the "
                "longest sequence, or take version='exp', which needs none."
            )
        if version != "softmax" and l_max is not None:
            raise ValueError(
                f"Only version='softmax' is bound to a length; got l_max={l_max} with version={version!r}. "
                "Leave l_max out."
            )
        self.d_model = d_model
        self.version = version
        self.l_max = l_max
        self.choose_discretization("impulse" if version in ("softmax", "exp-no-scale") else "zoh")
        kind = torch.get_default_dtype()
        poles = spectrum.legs(2 * d_state)
        if version.startswith("exp"):
            poles[:, 0] = torch.log(-poles[:, 0])
        if version == "exp-re-im":
            poles[:, 1] = torch.log(poles[:, 1])
        sizes = steps.log_uniform(d_model, dt_min, dt_max).log().to(kind)
        self.log_dt = nn.Parameter(sizes[:, None].repeat(1, 2) if separate_dt else sizes)
        self.Lambda = nn.Parameter(poles.to(kind))
        self.W = nn.Parameter(torch.randn(d_model, d_state, 2))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    def poles(self) -> Float[Tensor, "n 2"]:
        """lambda of each mode, as the version reads its parameters."""
        re, im = self.Lambda.to(torch.promote_types(self.Lambda.dtype, torch.float32)).unbind(-1)
        if self.version.startswith("exp"):
            re = -torch.exp(re)
        elif self.version == "clip":
            re = re.clamp(max=1e-4)
        return torch.stack([re, torch.exp(im) if self.version == "exp-re-im" else im], -1)

    def step_size(self) -> Float[Tensor, "d"]:
        """exp(log_dt), that of the real parts where the two are separate."""
        sizes = torch.exp(self.log_dt.to(torch.promote_types(self.log_dt.dtype, torch.float32)))
        return sizes if sizes.dim() == 1 else sizes[:, 0]

    def system(self) -> System:
        """A for each channel (separate steps scale its imaginary part by their ratio), B = 1 and C."""
        A, weight, growth = self._modes()
        if growth is not None and self.l_max is not None:
            weight = weight * torch.exp(-growth * (self.l_max - 1))[..., None]
        one = torch.tensor([1.0, 0.0], dtype=A.dtype, device=A.device)
        return System(A, one.expand_as(A), weight, self.D.to(A.dtype))

    def settings(self) -> tuple[object, ...]:
        """The discretization, the version and the lags of the softmax."""
        return (self.discretization, self.version, self.l_max)

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the layer is before its output map, without D: its first ``length`` values."""
        A, weight, growth = self._modes()
        one = self.discretize(A, self.step_size()[:, None])
        weight = _pairs.times(weight, one.gain)
        if growth is None or self.l_max is None:
            return vandermonde(one.log_a, weight, length)
        # A growing mode's powers and what they are divided by may not be numbers, apart.
        lags = torch.arange(length, dtype=torch.float64, device=A.device)
        late = torch.stack([growth.double() * (self.l_max - 1), torch.zeros_like(growth).double()], -1)
        exponent = one.log_a.double()[..., None, :] * lags[:, None] - late[..., None, :]
        powers = _pairs.exp(exponent)
        return _pairs.times(weight.double()[..., None, :], powers)[..., 0].sum(1).to(A.dtype)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros, and no time elapsed. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.W.dtype, torch.float32)
        h = self.W.new_zeros(batch, *self.W.shape, dtype=wide)
        return State(h, h.new_full((batch,), -1.0))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: h = e^z h + u, y = Re sum w h + D u, growing modes divided by e^(Re z elapsed)."""
        with torch.autocast(x_t.device.type, enabled=False):
            tables = self._memo.get(self, self._make, *self.settings())
            u = x_t.to(state.h.dtype)
            dt = None if dt_t is None else dt_t.to(u.dtype)
            elapsed = state.elapsed + (1.0 if dt is None else dt)
            decay, inputs = self._drive(tables, u, elapsed, dt)
            h = _pairs.times(decay, state.h) + inputs
            y = self._read(tables, h, elapsed) + tables.D * u
        return self.readout(y.to(x_t.dtype)), State(h, elapsed)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: the time-invariant system in chunks; with ``dt`` or growing modes a scan in blocks."""
        self.check_call(x, state, resets, dt)
        if self.l_max is not None and x.shape[1] > self.l_max:
            raise ValueError(
                f"This DSS normalizes its kernel over l_max = {self.l_max} lags, so a call takes at most "
                f"that many tokens; got {x.shape[1]}. Build it with a larger l_max, or take version='exp'."
            )
        state = self.init_state(x.shape[0]) if state is None else state
        with torch.autocast(x.device.type, enabled=False):
            tables = self._memo.get(self, self._make, *self.settings())
            wide = None if dt is None else dt.to(state.elapsed.dtype)
            passed = state.elapsed.new_ones(x.shape[:2]) if wide is None else wide
            elapsed = _elapsed(state.elapsed, passed, resets)
            if dt is None and not self._may_grow():
                y, h = diagonal_lti(x, tables.one.log_a, tables.weight, state.h, resets, tables.D)
            else:

                def block(
                    h: Tensor, x: Tensor, elapsed: Tensor, resets: Tensor | None, dt: Tensor | None
                ) -> tuple[Tensor, Tensor]:
                    u = x.to(h.dtype)
                    decay, inputs = self._drive(tables, u, elapsed, dt)
                    inputs = inputs.expand(*u.shape, *h.shape[2:])
                    decay = decay.flatten(-3, -2)
                    states, last = linear_scan_complex(decay, inputs.flatten(2, 3), h.flatten(1, 2), resets)
                    y = self._read(tables, states.view_as(inputs), elapsed) + tables.D * u
                    return y, last.view_as(h)

                length = steps_within(state.h.numel() // 2)
                y, h = run_in_blocks(block, length, state.h, x, elapsed, resets, wide)
        return self.readout(y.to(x.dtype)), State(h, elapsed[:, -1].clone())

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate."""
        return self.output(y)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, poles and W: at most 1e-3, no decay."""
        return [ParameterGroup([self.log_dt, self.Lambda, self.W], max_lr=1e-3, decay=False)]

    def _may_grow(self) -> bool:
        """Whether some Re lambda > 0; a graph being traced has no values, so it must expect one."""
        if self.version != "softmax":
            return False
        return torch.compiler.is_compiling() or bool((self.Lambda[:, 0] > 0).any())

    def _make(self) -> _Tables:
        A, weight, growth = self._modes()
        one = self.discretize(A, self.step_size()[:, None])
        log_a = one.log_a if growth is None else _slower(one.log_a, growth)
        weight = _pairs.times(weight, one.gain)
        return _Tables(A, one, _pairs.exp(log_a), growth, weight, self.D.to(A.dtype))

    def _modes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """A and C (d, n, 2), and by what a growing mode's logarithm grows a step, (d, n).

        The weight C of a growing mode lacks its factor exp(-growth (l_max - 1)), which may underflow.
        """
        poles, W = self.poles(), self.W.to(torch.promote_types(self.W.dtype, torch.float32))
        A = poles.expand_as(W)
        if self.log_dt.dim() == 2:
            log_dt = self.log_dt.to(A.dtype)
            ratio = torch.exp(log_dt[:, 1] - log_dt[:, 0])[:, None]
            A = torch.stack([A[..., 0], A[..., 1] * ratio], -1)
        if self.l_max is None:
            # The divisor of the published factor is lambda, whatever the two steps are.
            unlike = self.log_dt.dim() == 2 and self.version != "exp-no-scale"
            return A, (_pairs.times(W, _pairs.over(A, poles)) if unlike else W), None
        # In float64, since an angle times l_max loses its phase in float32.
        z = self.step_size().double()[:, None, None] * A.double()
        grows = z[..., :1] > 0
        falling = torch.where(grows, -z, z)
        below = _pairs.times(_pairs.expm1(falling * self.l_max), poles.double())
        conjugate = torch.stack([below[..., 0], -below[..., 1]], -1)
        weight = _pairs.times(W.double(), _pairs.times(_pairs.expm1(falling), conjugate))
        weight = weight / (below.square().sum(-1, keepdim=True) + EPS)
        angle = torch.where(grows[..., 0], -z[..., 1] * (self.l_max - 1), 0.0)
        turn = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
        return A, _pairs.times(weight, turn).to(A.dtype), torch.relu(z[..., 0]).to(A.dtype)

    def _drive(self, tables: _Tables, u: Tensor, elapsed: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        """Factor and input of each mode for u (..., d) at times (...), with steps dt (...) times its own."""
        decay, inputs = tables.factor, torch.stack([u, torch.zeros_like(u)], -1)[..., None, :]
        growth = tables.growth
        if dt is not None:
            log_a, gain = self.discretize(tables.A, dt[..., None, None] * self.step_size()[:, None])
            decay = _pairs.exp(log_a if growth is None else _slower(log_a, dt[..., None, None] * growth))
            inputs = _pairs.over(gain, tables.one.gain) * u[..., None, None]
        if growth is not None:
            inputs = inputs * torch.exp(-elapsed[..., None, None] * growth)[..., None]
        return decay, inputs

    def _read(self, tables: _Tables, h: Tensor, elapsed: Tensor) -> Tensor:
        """Re sum_n w_n h_n, growing modes with their growth up to l_max."""
        y = _pairs.times(tables.weight, h)[..., 0]
        if tables.growth is not None and self.l_max is not None:
            y = y * torch.exp((elapsed[..., None, None] - (self.l_max - 1)) * tables.growth)
        return y.sum(-1)

    @classmethod
    def example(cls) -> "DSS":
        """A small instance."""
        return cls(8, d_state=4)


def _elapsed(before: Tensor, passed: Tensor, resets: Tensor | None) -> Tensor:
    """Time since each row's first token or last reset, (b, t).

    ``before`` (b) is the time when the call begins, ``passed`` (b, t) what each token adds.
    """
    until = passed.cumsum(1)
    start = before[:, None].expand_as(until)
    if resets is not None:
        places = torch.arange(until.shape[1], device=before.device)
        last = torch.where(resets, places, -1).cummax(1).values
        fresh = passed - until - 1.0
        start = torch.where(last < 0, start, fresh.gather(1, last.clamp_min(0)))
    return until + start


def _slower(log_a: Tensor, growth: Tensor) -> Tensor:
    """Logarithms (..., 2) with real parts lower by ``growth`` (...)."""
    return torch.stack([log_a[..., 0] - growth, log_a[..., 1]], -1)
