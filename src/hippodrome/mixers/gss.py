"""GSS: the gated state space, a diagonal system at a quarter of the width under a wide gate."""

import torch.nn.functional as F
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.mixers._lti import BankState
from hippodrome.mixers._simplified_dss import SimplifiedDSS
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class GSS(Mixer):
    """u = gelu(W_1 x), v = gelu(W_2 x), y = DSS(norm(v)), and W_4 ((W_3 y) * u).

    Mehta, Gupta, Cutkosky, Neyshabur 2022, "Long range language modeling via gated state spaces", arXiv
    2206.13947, section 3, equations of the gated state space. DSS stands in its simplified form: poles
    shared by all channels, step size 1, K_l = Re sum_n C_n (e^lambda_n - 1) / lambda_n e^(lambda_n l), all
    modes kept, with a layer norm of its own before it. The system has ``d_inner`` channels, fewer than the
    model; only the gate is wide. The norm of x and the residual belong to the block around it. ``dt``
    multiplies the step size 1: inputs are held, so that a system of continuous time is what is sampled.

    Args:
        d_model: channels in and out.
        d_inner: channels of the state space.
        d_state: complex numbers in each of their states.
        d_gate: channels of the gate; None takes 4 d_model.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self, d_model: int, d_inner: int = 256, d_state: int = 512, d_gate: int | None = None
    ) -> None:
        super().__init__()
        self.d_model = d_model
        wide = 4 * d_model if d_gate is None else d_gate
        self.to_gate = Projection(d_model, wide)
        self.to_system = Projection(d_model, d_inner)
        self.norm = nn.LayerNorm(d_inner)
        self.system = SimplifiedDSS(d_inner, d_state)
        self.from_system = Projection(d_inner, wide)
        self.output = Projection(wide, d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> BankState:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        return self.system.init_state(batch)

    def step(self, x_t: Token, state: BankState, *, dt_t: Tensor | None = None) -> tuple[Token, BankState]:
        """One token."""
        y, state = self.system.step(self._enter(x_t), state, dt_t=dt_t)
        return self._leave(y, x_t), state

    def forward(
        self,
        x: Sequence,
        state: BankState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, BankState]:
        """Many tokens."""
        self.check_call(x, state, resets, dt)
        y, state = self.system(self._enter(x), state, resets=resets, dt=dt)
        return self._leave(y, x), state

    def _enter(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.to_system(x)))

    def _leave(self, y: Tensor, x: Tensor) -> Tensor:
        return self.output(self.from_system(y) * F.gelu(self.to_gate(x)))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The poles: at most 1e-3, no decay."""
        return [ParameterGroup([self.system.Lambda], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "GSS":
        """A small instance."""
        return cls(8, d_inner=4, d_state=6)
