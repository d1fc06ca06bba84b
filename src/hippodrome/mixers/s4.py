"""S4: a bank of state space systems, each diagonal less a matrix of low rank, so that it can be HiPPO."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo, steps
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._blocks import run_one_by_one
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.ops import _pairs
from hippodrome.ops.dense_lti import dense_lti
from hippodrome.ops.dplr_kernel import dense, dplr_kernel
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

_MEASURES = ("legs", "legt", "lagt", "fout")


class S4System(NamedTuple):
    """A continuous system with A = Lambda - P Q^*, one of each conjugate pair kept: y = 2 Re C x + D u."""

    poles: Float[Tensor, "d n 2"]
    P: Float[Tensor, "d r n 2"]
    Q: Float[Tensor, "d r n 2"]
    B: Float[Tensor, "d n 2"]
    C: Float[Tensor, "d n 2"]
    D: Float[Tensor, "d"]


class S4State(NamedTuple):
    """The state of the bank."""

    x: Float[Tensor, "b d n 2"]
    """One of each conjugate pair, as pairs, in float32 or wider."""


class _Step(NamedTuple):
    """(1 - dt A / 2)^-1 (1 + dt A / 2), apart into what is diagonal and what is of low rank."""

    decay: Tensor
    gain: Tensor
    row: Tensor
    column: Tensor
    inner: Tensor
    solve: Tensor
    C: Tensor
    D: Tensor


class S4(Mixer):
    """x' = A x + B u, y = 2 Re C x + D u with A = Lambda - P P^* for each channel, then GELU and a gate.

    Gu, Goel, Ré 2021, "Efficiently modeling long sequences with structured state spaces", arXiv 2111.00396,
    equation 1, discretized by the bilinear rule of equation 3, with A diagonal plus low rank (theorem 1).
    Lambda has a negative real part whatever training does, and the low-rank part is taken off with one factor
    twice, so that A + A^* is negative definite: the system is stable by construction (Goel, Gu, Donahue, Ré
    2022, arXiv 2202.09729, section 4). ``unconstrained`` gives the second factor parameters of its own and
    that promise up.

    ``step`` costs O(n) a channel. ``forward`` writes the same system in real numbers and runs it in chunks,
    which takes any state and resets and hands back the exact last state; ``kernel`` is the published way, by
    Cauchy sums at the roots of unity. Inside the boundary of this mixer is what the published layer holds
    between its norm and its residual: the system with its skip D, GELU, a linear map to twice the width and
    the gate. Dropout and norm belong to the block around it.

    ``dt`` multiplies the step size. With it ``forward`` runs one token after the other, by ``step``: a step
    size of its own for every token leaves nothing for chunks to share.

    Args:
        d_model: channels in and out.
        d_state: real size N of each channel's state; N / 2 complex numbers are kept.
        measure: the HiPPO system that A and B start as: "legs", "legt", "lagt" or "fout", or several joined
            by "+", such as "legs+fout", which share the copies evenly.
        n_ssm: copies of (A, B); channel i takes copy i modulo n_ssm. Step sizes and C are each channel's own.
        unconstrained: A = Lambda - P Q^*, with Q = P at first.
        dt_min: smallest initial step size; 1 / dt is about how many steps a channel remembers.
        dt_max: largest initial step size.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.

    Raises:
        ValueError: d_state is odd, a measure is unknown, or the copies do not divide the channels.
    """

    mixes_channels = True
    accepts_dt = True
    reversed_from = "offset"

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        measure: str = "legs",
        n_ssm: int = 1,
        unconstrained: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        gated: bool = True,
    ) -> None:
        super().__init__()
        names = measure.split("+")
        for name in names:
            if name not in _MEASURES:
                raise ValueError(
                    f"S4 has no measure {name!r}; expected one of {', '.join(_MEASURES)}, or several "
                    "joined by +."
                )
        if n_ssm < 1 or n_ssm % len(names):
            raise ValueError(
                f"The copies of S4's systems are shared evenly among {len(names)} measures, so n_ssm must be "
                f"a multiple of that; got {n_ssm}. Take {len(names)}."
            )
        if d_model % n_ssm:
            raise ValueError(
                f"Every copy of S4's systems serves as many channels, so n_ssm must divide d_model; got "
                f"n_ssm {n_ssm} and d_model {d_model}. Take 1, or d_model itself."
            )
        self.d_model = d_model
        poles, P, B = _first(names, d_state, n_ssm // len(names))
        kind = torch.get_default_dtype()
        self.log_dt = nn.Parameter(steps.log_uniform(d_model, dt_min, dt_max).log().to(kind))
        self.log_A_real = nn.Parameter((-poles[..., 0]).clamp_min(1e-4).log().to(kind))
        self.A_imag = nn.Parameter(poles[..., 1].to(kind).clone())
        self.P = nn.Parameter(P.to(kind))
        self.Q = nn.Parameter(P.to(kind)) if unconstrained else None
        self.B = nn.Parameter(B.to(kind))
        self.C = nn.Parameter(torch.randn(d_model, d_state // 2, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model) if gated else nn.Identity()
        self._memo: Memo[_Step] = Memo()

    def system(self, dtype: torch.dtype | None = None) -> S4System:
        """The continuous system of every channel, in ``dtype``; float32 or wider when None."""
        dtype = torch.promote_types(self.B.dtype, torch.float32) if dtype is None else dtype
        poles = torch.stack([-torch.exp(self.log_A_real.to(dtype)), self.A_imag.to(dtype)], -1)
        P, B = self.P.to(dtype), self.B.to(dtype)
        Q = P if self.Q is None else self.Q.to(dtype)
        each = self.d_model // poles.shape[0]
        poles, P, Q, B = (x.repeat(each, *[1] * (x.dim() - 1)) for x in (poles, P, Q, B))
        return S4System(poles, P, Q, B, self.C.to(dtype), self.D.to(dtype))

    def step_size(self) -> Float[Tensor, "d"]:
        """exp(log_dt)."""
        return torch.exp(self.log_dt.to(torch.promote_types(self.log_dt.dtype, torch.float32)))

    def discrete(self) -> tuple[Float[Tensor, "d m m"], Float[Tensor, "d m"], Float[Tensor, "d m"]]:
        """Abar, Bbar and the output row of one step on real and imaginary parts in turn, in float64."""
        poles, P, Q, B, C, _ = self.system(torch.float64)
        Abar, Bbar = dense.bilinear(poles, P, Q, B, torch.exp(self.log_dt.double()))
        return Abar, Bbar, dense.output(C)

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The convolution that the system is, without D: its first ``length`` values, by Cauchy sums."""
        poles, P, Q, B, C, _ = self.system()
        truncated = dense.truncate(C.double(), self.discrete()[0], length)
        return dplr_kernel(poles, P, Q, B, truncated.to(C.dtype), self.step_size(), length)

    def init_state(self, batch: int, max_length: int | None = None) -> S4State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.C.dtype, torch.float32)
        return S4State(self.C.new_zeros(batch, *self.C.shape, dtype=wide))

    def step(self, x_t: Token, state: S4State, *, dt_t: Tensor | None = None) -> tuple[Token, S4State]:
        """One token: (1 - dt A / 2) x = (1 + dt A / 2) x + dt B u, solved by Woodbury's identity."""
        with torch.autocast(x_t.device.type, enabled=False):
            if dt_t is None:
                one = self._memo.get(self, lambda: self._discretize(self.system(), None))
            else:
                one = self._discretize(self.system(), dt_t)
            y, x = self._advance(one, x_t.to(state.x.dtype), state.x)
        return self.output(y.to(x_t.dtype)), S4State(x)

    def forward(
        self,
        x: Sequence,
        state: S4State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, S4State]:
        """Many tokens: the real dense form in chunks; with ``dt`` one token after the other."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            if dt is None:
                Abar, Bbar, row = self.discrete()
                before = None if state is None else state.x.flatten(-2)
                skip = self.D.double()[:, None]
                y, last = dense_lti(x, Abar, Bbar, row[:, None], before, resets, skip)
                y, last = y[..., 0], last.unflatten(-1, (-1, 2))
            else:
                system = self.system()

                def advance(h: Tensor, x_t: Tensor, dt_t: Tensor) -> tuple[Tensor, Tensor]:
                    return self._advance(self._discretize(system, dt_t), x_t, h)

                held = (self.init_state(x.shape[0]) if state is None else state).x
                y, last = run_one_by_one(advance, held, x, resets, dt)
        return self.output(y.to(x.dtype)), S4State(last)

    def _discretize(self, system: S4System, dt_t: Tensor | None) -> _Step:
        """One step of every channel, of its own for every row where there is a ``dt`` (b)."""
        poles, P, Q, B, C, D = system
        size = self.step_size()
        if dt_t is not None:
            size = dt_t.to(D.dtype)[:, None] * size
        half = 0.5 * size[..., None, None]  # [b] d 1 1
        one = poles.new_tensor([1.0, 0.0]).expand_as(poles)
        inverse = _pairs.over(one, one - half * poles)
        row = 2 * Q.flatten(-2)  # Q^* x, over both halves, is row . x
        column = _pairs.times(inverse[..., None, :, :], half[..., None] * P).flatten(-2)
        inner = row @ column.mT  # [b] d r r
        return _Step(
            _pairs.times(inverse, one + half * poles),
            _pairs.times(inverse, 2 * half * B),
            row,
            column,
            inner,
            torch.linalg.inv(torch.eye(P.shape[1], dtype=P.dtype, device=P.device) + inner),
            2 * torch.stack([C[..., 0], -C[..., 1]], -1).flatten(-2),
            D,
        )

    @staticmethod
    def _advance(one: _Step, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The system's output and next state for inputs u (b, d)."""
        plain = (_pairs.times(one.decay, x) + one.gain * u[..., None, None]).flatten(-2)
        seen = one.row @ x.flatten(-2)[..., None]  # b d r 1
        weight = one.solve @ (one.row @ plain[..., None] - one.inner @ seen)
        after = plain - ((seen + weight).mT @ one.column)[..., 0, :]
        return (one.C * after).sum(-1) + one.D * u, after.unflatten(-1, (-1, 2))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, A and B: at most 1e-3, no decay."""
        slow = [self.log_dt, self.log_A_real, self.A_imag, self.P, self.B]
        if self.Q is not None:
            slow.append(self.Q)
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "S4":
        """A small instance."""
        return cls(8, d_state=8, n_ssm=2)


def _first(names: list[str], d_state: int, each: int) -> tuple[Tensor, Tensor, Tensor]:
    """Poles (s, n, 2), P (s, r, n, 2) and B (s, n, 2) of ``each`` copies of every measure by name."""
    systems = [hippo.nplr(name, d_state) for name in names]
    rank = max(system.P.shape[0] for system in systems)
    columns = [torch.cat([s.P, s.P.new_zeros(rank - s.P.shape[0], *s.P.shape[1:])]) for s in systems]
    parts = [s.poles for s in systems], columns, [s.B for s in systems]
    poles, P, B = (torch.stack(part).repeat_interleave(each, 0) for part in parts)
    return poles, P, B
