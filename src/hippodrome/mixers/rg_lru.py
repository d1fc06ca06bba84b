"""RG-LRU: the real gated linear recurrent unit of Griffin and Hawk, inside their recurrent block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers._diagonal_recurrence import Channels, DiagonalRecurrence
from hippodrome.mixers.base import ParameterGroup

SHARPNESS = 8.0
"""The paper's c: how far an open recurrence gate can push the decay."""


class RGLRU(DiagonalRecurrence):
    """r = sigmoid(W_a x + b_a), i = sigmoid(W_x x + b_x), a_t = sigmoid(Lambda)^(8 r_t dt_t),
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t).

    De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for efficient language
    models", arXiv 2402.19427, equations 1 to 4, with log a_t as in equation 6 and the recurrent block of
    figure 2c: one branch through a short convolution and this unit, times gelu of the other, then a linear
    map. With dt, which the paper has not (dt = 1), the state is an exactly sampled process of the same
    stationary size, since the decay over dt is a power and the input keeps a_t^2 + (1 - a_t^2) = 1.

    Args:
        d_model: channels in and out.
        d_recurrent: channels of the recurrence; None takes d_model.
        taps: of the short convolution.
    """

    accepts_dt = True

    def __init__(self, d_model: int, d_recurrent: int | None = None, taps: int = 4) -> None:
        super().__init__()
        self.d_model = d_model
        self.d_state = d_model if d_recurrent is None else d_recurrent
        self.in_proj = Projection(d_model, 2 * self.d_state, bias=False)
        self.conv = ShortConv(self.d_state, taps)
        self.gates = Projection(self.d_state, 2 * self.d_state)
        # sigmoid(Lambda)^8 starts uniform between 0.9 and 0.999 (section 2.4); inverted in float64.
        log_a = torch.log(0.9 + 0.099 * torch.rand(self.d_state, dtype=torch.float64)) / SHARPNESS
        start = log_a - torch.log(-torch.expm1(log_a))
        self.Lambda = nn.Parameter(start.to(torch.get_default_dtype()))
        self.out_proj = Projection(self.d_state, d_model, bias=False)

    def project(self, x: Channels) -> tuple[Channels, Channels]:
        """The branch of the recurrence and the branch of the gate."""
        inner, gate = self.in_proj(x).chunk(2, -1)
        return inner, gate

    def drive(self, inner: Channels, dt: Tensor | None) -> tuple[Channels, Channels]:
        """Decays and normalized inputs, through log a_t, which stays exact where a_t is close to 1."""
        wide = torch.promote_types(inner.dtype, torch.float32)
        recurrence, entry = torch.sigmoid(self.gates(inner).to(wide)).chunk(2, -1)
        log_a = SHARPNESS * recurrence * F.logsigmoid(self.Lambda.to(wide))
        if dt is not None:
            log_a = log_a * dt[..., None].to(wide)
        # The bound keeps the root's slope finite where a gate is shut and a_t rounds to 1.
        size = torch.sqrt((-torch.expm1(2 * log_a)).clamp(min=1e-12))
        return torch.exp(log_a), size * entry * inner.to(wide)

    def readout(self, h: Channels, side: Channels) -> Channels:
        """The state times gelu of the other branch, through a linear map."""
        return self.out_proj(h * F.gelu(side))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Lambda sets time scales: 1e-3 at most, and no decay, which pulls every memory to one length."""
        return [ParameterGroup([self.Lambda], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "RGLRU":
        """A small instance."""
        return cls(8)
