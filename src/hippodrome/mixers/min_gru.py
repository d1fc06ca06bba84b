"""minGRU: a gated recurrent unit whose gate and candidate look at the input alone."""

import torch
from torch import Tensor

from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers._diagonal_recurrence import Channels, DiagonalRecurrence


class MinGRU(DiagonalRecurrence):
    """h_t = (1 - z_t) h_{t-1} + z_t c_t, z_t = sigmoid(W_z x_t + b_z), c_t = W_c x_t + b_c.

    Feng, Tung, Ahmed, Bengio, Hajimirsadeghi 2024, "Were RNNs all we needed?", arXiv 2410.01201, section 3.1,
    equations of the minGRU; its log-space form is not needed, since the scan here never divides. A short
    causal convolution stands before it and a linear map after it.

    Args:
        d_model: channels in and out.
        d_recurrent: channels of the recurrence; None takes d_model.
        taps: of the short convolution; 1 leaves only a scale and a shift of each channel.
    """

    def __init__(self, d_model: int, d_recurrent: int | None = None, taps: int = 4) -> None:
        super().__init__()
        self.d_model = d_model
        self.d_state = d_model if d_recurrent is None else d_recurrent
        self.conv = ShortConv(d_model, taps)
        self.in_proj = Projection(d_model, 2 * self.d_state)
        self.out_proj = Projection(self.d_state, d_model, bias=False)

    def project(self, x: Channels) -> tuple[Channels, Channels]:
        """The input as it is; nothing is set aside."""
        return x, x

    def drive(self, inner: Channels, dt: Tensor | None) -> tuple[Channels, Channels]:
        """Decay 1 - z and input z c."""
        gate, candidate = self.in_proj(inner).chunk(2, -1)
        wide = torch.promote_types(inner.dtype, torch.float32)
        gate, candidate = gate.to(wide), candidate.to(wide)
        return torch.sigmoid(-gate), torch.sigmoid(gate) * candidate

    def readout(self, h: Channels, side: Channels) -> Channels:
        """A linear map of the state."""
        return self.out_proj(h)

    @classmethod
    def example(cls) -> "MinGRU":
        """A small instance."""
        return cls(8)
