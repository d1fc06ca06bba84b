"""LTC: the liquid time-constant cell, whose synapses set how fast each unit forgets."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits.steps import inverse_softplus
from hippodrome.layers.projection import Projection
from hippodrome.mixers._blocks import run_one_by_one
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What an LTC carries from token to token."""

    v: Float[Tensor, "b n"]
    """The potential of each unit, in float32 or wider."""


class _Synapses(NamedTuple):
    """Of each unit i from each source j: s = sigmoid(slope v_j + offset), and the weights (w, w e) of s."""

    slope: Tensor
    offset: Tensor
    weights: Tensor

    def flow(self, source: Tensor) -> Tensor:
        """Conductances and currents into each unit, (b, 2, i), from the potentials of sources (b, j)."""
        s = torch.sigmoid(torch.addcmul(self.offset, self.slope, source[:, None]))
        return (self.weights * s[:, None]).sum(-1)


class _Tables(NamedTuple):
    inputs: _Synapses
    units: _Synapses
    leak: Tensor
    c: Tensor
    scale: Tensor
    shift: Tensor


class LTC(Mixer):
    """c dv_i/dt = g_i (l_i - v_i) + sum_j w_ij s_ij (e_ij - v_i), s_ij = sigmoid(sigma_ij (v_j - mu_ij)).

    Hasani, Lechner, Amini, Rus, Grosu 2020, "Liquid time-constant networks", arXiv 2006.04439, equation 1:
    dx/dt = -(1/tau + f) x + f A, with f the conductances of chemical synapses from the inputs and from the
    units themselves. Each token takes ``unfolds`` steps of the paper's fused solver (algorithm 1),
    x <- (x + dt f A) / (1 + dt (1/tau + f)), here

        v <- (c/dt v + g l + sum_j w_j s_j e_j) / (c/dt + g + sum_j w_j s_j).

    That is a mean of v, l and the e_j with positive weights, so v stays between the smallest and the largest
    of them whatever the inputs and dt are, and the gradient passes through no stiff step. ``dt`` multiplies
    the length of each unfold, which is 1. Inputs pass a scale and a shift on their way in, v a linear map on
    its way out. c, g and w are positive as softplus of their parameters. Units look at the last v of all
    units, so time runs one step after the other; for a parallel form with a linear f see Liquid-S4.

    Args:
        d_model: channels in and out.
        d_state: units.
        unfolds: solver steps for each token.

    Raises:
        ValueError: there are no units or no solver steps.
    """

    accepts_dt = True

    def __init__(self, d_model: int, d_state: int = 32, unfolds: int = 6) -> None:
        super().__init__()
        if d_state < 1 or unfolds < 1:
            raise ValueError(
                f"An LTC needs at least one unit and one solver step; got d_state={d_state}, "
                f"unfolds={unfolds}. The published cell takes 6 steps."
            )
        self.d_model = d_model
        self.unfolds = unfolds
        # Row j of a synapse is where it comes from: the inputs first, then the units.
        size = (d_model + d_state, d_state)
        self.w = nn.Parameter(inverse_softplus(torch.empty(size).uniform_(0.01, 1.0)))
        self.mu = nn.Parameter(torch.empty(size).uniform_(0.3, 0.8))
        self.sigma = nn.Parameter(torch.empty(size).uniform_(3.0, 8.0))
        self.e = nn.Parameter(2.0 * torch.randint(0, 2, size) - 1.0)
        self.c = nn.Parameter(inverse_softplus(torch.full((d_state,), 0.5)))
        self.g = nn.Parameter(inverse_softplus(torch.ones(d_state)))
        self.leak = nn.Parameter(torch.empty(d_state).uniform_(-0.2, 0.2))
        self.scale = nn.Parameter(torch.ones(d_model))
        self.shift = nn.Parameter(torch.zeros(d_model))
        self.output = Projection(d_state, d_model)
        self._memo: Memo[_Tables] = Memo()

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.leak.dtype, torch.float32)
        return State(self.leak.new_zeros(batch, self.leak.shape[0], dtype=wide))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: ``unfolds`` steps of the fused solver with the input held."""
        with torch.autocast(x_t.device.type, enabled=False):
            v = self._unfold(self._memo.get(self, self._make), x_t, state.v, dt_t)
        return self.output(v.to(x_t.dtype)), State(v)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, one after the other; the output map takes them all at once."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        with torch.autocast(x.device.type, enabled=False):
            tables = self._memo.get(self, self._make)

            def advance(v: Tensor, x_t: Tensor, dt_t: Tensor | None) -> tuple[Tensor, Tensor]:
                v = self._unfold(tables, x_t, v, dt_t)
                return v, v

            potentials, last = run_one_by_one(advance, state.v, x, resets, dt)
        return self.output(potentials.to(x.dtype)), State(last)

    def time_constants(self, x_t: Token, state: State) -> Float[Tensor, "b n"]:
        """How fast each unit forgets at this input and state: c / (g + sum_j w_j s_j), between its bounds
        c / (g + sum_j w_j) and tau = c / g."""
        tables = self._make()
        inputs = tables.scale * x_t.to(state.v.dtype) + tables.shift
        synapses = tables.inputs.flow(inputs) + tables.units.flow(state.v)
        return tables.c / (tables.leak[0] + synapses[:, 0])

    def _make(self) -> _Tables:
        """What all tokens share, in float32 or wider."""
        wide = torch.promote_types(self.leak.dtype, torch.float32)
        w, mu, sigma, e = (p.to(wide).T for p in (self.w, self.mu, self.sigma, self.e))
        w = F.softplus(w)
        slope, offset, weights = sigma, -sigma * mu, torch.stack([w, w * e])
        inputs, units = (
            _Synapses(slope[:, part], offset[:, part], weights[..., part])
            for part in (slice(0, self.d_model), slice(self.d_model, None))
        )
        g = F.softplus(self.g.to(wide))
        leak = torch.stack([g, g * self.leak.to(wide)])
        return _Tables(
            inputs, units, leak, F.softplus(self.c.to(wide)), self.scale.to(wide), self.shift.to(wide)
        )

    def _unfold(self, tables: _Tables, x: Tensor, v: Tensor, dt: Tensor | None) -> Tensor:
        """The potentials after one token."""
        held = tables.leak + tables.inputs.flow(tables.scale * x.to(v.dtype) + tables.shift)
        inertia = tables.c if dt is None else tables.c / dt.to(v.dtype)[:, None]
        held = held + torch.stack([inertia, torch.zeros_like(inertia)], -2)
        for _ in range(self.unfolds):
            total = held + tables.units.flow(v)
            v = torch.addcmul(total[:, 1], inertia, v) / total[:, 0]
        return v

    def parameter_groups(self) -> list[ParameterGroup]:
        """c and g set time scales: at most 1e-3, no decay. Nor do synapses and leaks decay, whose zero is
        no rest."""
        synapses = [self.w, self.mu, self.sigma, self.e, self.leak]
        return [
            ParameterGroup([self.c, self.g], max_lr=1e-3, decay=False),
            ParameterGroup(synapses, decay=False),
        ]

    @classmethod
    def example(cls) -> "LTC":
        """A small instance."""
        return cls(4, d_state=5, unfolds=3)
