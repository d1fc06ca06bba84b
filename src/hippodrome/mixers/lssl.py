"""LSSL: a bank of dense state space systems with several outputs each, A fixed or trained in a structure."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo, steps
from hippodrome.layers.projection import Projection
from hippodrome.mixers._blocks import run_one_by_one
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.ops.dense_lti import dense_lti
from hippodrome.ops.discretize import dense_gbt
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class LSSLState(NamedTuple):
    """The state of the bank."""

    x: Float[Tensor, "b d n"]
    """Real, in float32 or wider."""


class LSSL(Mixer):
    """x' = A x + B u, y = C x + D u with m outputs a channel, then GELU and a linear map of all of them.

    Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, "Combining recurrent, convolutional, and continuous-time
    models with linear state-space layers", arXiv 2110.13985, section 3, equations of the recurrent view,
    discretized by the generalized bilinear rule. A and B start as HiPPO-LegS. Each channel has a step size of
    its own, log-uniform, so that a layer sees many time scales; fixed, A, B and the step sizes stay as they
    are and C, D and the map learn. With ``trainable`` each channel's A is

        A = P_l (Dg + T^-1) P_r      with P_l, Dg, P_r diagonal and T tridiagonal,

    the paper's structured class, of which LegS is a member: T^-1 is the lower triangle of ones, P_r =
    sqrt(2i + 1) = -P_l, Dg = -i / (2i + 1). Nothing keeps a trained A stable: its rate is small.

    Inside the boundary of this mixer is what the published layer holds between its norm and its residual,
    dropout apart. The state's size enters the cost of a call cubed, once for each channel, as published.

    ``dt`` multiplies the step size. With it ``forward`` runs one token after the other, and each solves a
    system of its own: it is there for short irregular series.

    Args:
        d_model: channels in and out.
        d_state: size N of each channel's state; the published default is d_model.
        outputs: M, outputs of each channel's system.
        trainable: learn A, B and the step sizes too.
        alpha: of the generalized bilinear rule: 1/2 is bilinear, 1 backward Euler, 0 forward Euler.
        dt_min: smallest initial step size.
        dt_max: largest initial step size.

    Raises:
        ValueError: a size is below 1, or alpha is not between 0 and 1.
    """

    mixes_channels = True
    accepts_dt = True
    reversed_from = "offset"
    A: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        outputs: int = 1,
        trainable: bool = False,
        alpha: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        if d_state < 1 or outputs < 1:
            raise ValueError(
                f"LSSL needs a state and an output, of size 1 or more each; got d_state {d_state} "
                f"and outputs {outputs}."
            )
        if not 0 <= alpha <= 1:
            raise ValueError(
                f"LSSL's rule is a mean of both Euler rules, 0 <= alpha <= 1; got {alpha}. Take 0.5."
            )
        self.d_model, self.alpha, self.trainable = d_model, alpha, trainable
        kind = torch.get_default_dtype()
        log_dt = steps.log_uniform(d_model, dt_min, dt_max).log().to(kind)
        A, B = hippo.legs(d_state)
        if trainable:
            left, diagonal, right = _legs_factors(d_state)
            own = (d_model, 1)
            self.log_dt = nn.Parameter(log_dt)
            self.left = nn.Parameter(left.to(kind).repeat(own))
            self.right = nn.Parameter(right.to(kind).repeat(own))
            self.diagonal = nn.Parameter(diagonal.to(kind).repeat(own))
            self.below = nn.Parameter(torch.full((d_model, d_state - 1), -1.0))
            self.middle = nn.Parameter(torch.ones(d_model, d_state))
            self.above = nn.Parameter(torch.zeros(d_model, d_state - 1))
            self.B = nn.Parameter(B.to(kind).repeat(own))
        else:
            self.register_buffer("log_dt", log_dt)
            self.register_buffer("A", A.to(kind))
            self.register_buffer("B", B.to(kind))
        self.C = nn.Parameter(torch.randn(d_model, outputs, d_state))
        self.D = nn.Parameter(torch.randn(d_model, outputs))
        self.linear = Projection(d_model * outputs, d_model)
        self._memo: Memo[tuple[Tensor, Tensor]] = Memo()

    def matrix(self) -> Float[Tensor, "d n n"]:
        """A of every channel, in float64."""
        if not self.trainable:
            return self.A.double().expand(self.d_model, -1, -1)
        below, middle, above = (x.double() for x in (self.below, self.middle, self.above))
        T = torch.diag_embed(middle) + torch.diag_embed(below, -1) + torch.diag_embed(above, 1)
        inner = torch.diag_embed(self.diagonal.double()) + torch.linalg.inv(T)
        return self.left.double()[:, :, None] * inner * self.right.double()[:, None, :]

    def step_size(self) -> Float[Tensor, "d"]:
        """exp(log_dt)."""
        return torch.exp(self.log_dt.to(torch.promote_types(self.log_dt.dtype, torch.float32)))

    def discrete(self) -> tuple[Float[Tensor, "d n n"], Float[Tensor, "d n"]]:
        """Abar and Bbar of one step, in float64."""
        return self._discretize(self.matrix(), None)

    def init_state(self, batch: int, max_length: int | None = None) -> LSSLState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.C.dtype, torch.float32)
        return LSSLState(self.C.new_zeros(batch, self.d_model, self.C.shape[-1], dtype=wide))

    def step(self, x_t: Token, state: LSSLState, *, dt_t: Tensor | None = None) -> tuple[Token, LSSLState]:
        """One token: x = Abar x + Bbar u, y = C x + D u."""
        with torch.autocast(x_t.device.type, enabled=False):
            kind = state.x.dtype
            one = self._tables(kind) if dt_t is None else self._discretize(self.matrix(), dt_t)
            y, x = self._advance(*one, x_t.to(kind), state.x)
        return self._readout(y.to(x_t.dtype)), LSSLState(x)

    def forward(
        self,
        x: Sequence,
        state: LSSLState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, LSSLState]:
        """Many tokens: in chunks; with ``dt`` one token after the other."""
        self.check_call(x, state, resets, dt)
        with torch.autocast(x.device.type, enabled=False):
            if dt is None:
                before = None if state is None else state.x
                Abar, Bbar = self.discrete()
                y, last = dense_lti(x, Abar, Bbar, self.C, before, resets, self.D)
            else:
                A = self.matrix()

                def advance(h: Tensor, x_t: Tensor, dt_t: Tensor) -> tuple[Tensor, Tensor]:
                    return self._advance(*self._discretize(A, dt_t), x_t, h)

                held = (self.init_state(x.shape[0]) if state is None else state).x
                y, last = run_one_by_one(advance, held, x, resets, dt)
        return self._readout(y.to(x.dtype)), LSSLState(last)

    def _discretize(self, A: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        """Abar and Bbar in float64 of one step, of its own for every row where there is a ``dt`` (b)."""
        size = torch.exp(self.log_dt.double())
        if dt is not None:
            size = dt.double()[:, None] * size
        B = self.B.double().expand(self.d_model, -1)
        Abar, Bbar = dense_gbt(A, B[..., None], size, self.alpha)
        return Abar, Bbar[..., 0]

    def _tables(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Abar and Bbar in a dtype, made once for all tokens that have no ``dt``."""

        def make() -> tuple[Tensor, Tensor]:
            Abar, Bbar = self.discrete()
            return Abar.to(dtype), Bbar.to(dtype)

        return self._memo.get(self, make, dtype, self.alpha)

    def _advance(self, Abar: Tensor, Bbar: Tensor, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The systems' outputs (b, d, m) and next state for inputs u (b, d)."""
        Abar, Bbar, C, D = (part.to(x.dtype) for part in (Abar, Bbar, self.C, self.D))
        x = (Abar @ x[..., None])[..., 0] + Bbar * u[..., None]
        return (C @ x[..., None])[..., 0] + D * u[..., None], x

    def _readout(self, y: Tensor) -> Tensor:
        """GELU and the map from all channels' outputs, (..., d, m) to (..., d)."""
        return self.linear(F.gelu(y).flatten(-2))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Trained A at most 1e-4, its B and step sizes at most 1e-3, no decay; none where they are fixed."""
        if not self.trainable:
            return []
        A = [self.left, self.right, self.diagonal, self.below, self.middle, self.above]
        return [
            ParameterGroup(A, max_lr=1e-4, decay=False),
            ParameterGroup([self.log_dt, self.B], max_lr=1e-3, decay=False),
        ]

    @classmethod
    def example(cls) -> "LSSL":
        """A small instance."""
        return cls(8, d_state=4, outputs=2, trainable=True)


def _legs_factors(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """P_l, Dg and P_r of LegS, with T^-1 the lower triangle of ones; T is 1, and -1 below the diagonal.

    Below the diagonal A is -sqrt(2i + 1) sqrt(2k + 1), and on it -(i + 1) = -(2i + 1) (1 - i / (2i + 1)).
    """
    i = torch.arange(n, dtype=torch.float64)
    root = torch.sqrt(2 * i + 1)
    return -root, -i / (2 * i + 1), root
