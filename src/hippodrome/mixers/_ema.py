"""The damped exponential moving average of many heads: a few fading sums of each channel."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.mixers._memo import Memo
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.vandermonde import vandermonde

Tables = tuple[Tensor, Tensor, Tensor]
"""log q and the weight of each average, both (sides, d, n), and omega (d): float32 at least."""


class EMA(nn.Module):
    """h_t = q h_{t-1} + p beta x_t, y_t = sum_n gamma_n h_{t,n} / sqrt(n) + omega x_t for each channel.

    Ma et al. 2022, "Mega: moving average equipped gated attention", arXiv 2209.10655, section 3.1: p =
    sigmoid(delta) weighs what comes in, alpha = sigmoid(a) damps, and q = 1 - p alpha in (0, 1) fades. It is
    a real diagonal system with Abar = q and Bbar = p beta; the kernel is K_l = sum_n gamma_n / sqrt(n) p_n
    beta_n q_n^l. With two sides a second set of averages runs over the reversed tokens, and both hold the
    token itself.

    The state that is handed on is h / (p beta), (b, d, n): the sum of q^l x_{t-l}.

    Args:
        d_model: channels.
        d_state: averages n of each channel.
        bidirectional: whether there are two sides.
    """

    def __init__(self, d_model: int, d_state: int = 16, bidirectional: bool = False) -> None:
        super().__init__()
        shape = (2 if bidirectional else 1, d_model, d_state)
        self.delta = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.2, a=-0.4, b=0.4))
        self.a = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.2, a=-0.4, b=0.4))
        sign = 1.0 - 2.0 * (torch.arange(d_state) % 2)
        self.beta = nn.Parameter(sign + 0.02 * torch.randn(shape))
        self.gamma = nn.Parameter(torch.randn(shape))
        self.omega = nn.Parameter(torch.randn(d_model))
        self._memo: Memo[Tables] = Memo()

    def init_state(self, batch: int) -> Float[Tensor, "b d n"]:
        """Zeros."""
        wide = torch.promote_types(self.a.dtype, torch.float32)
        return self.a.new_zeros(batch, *self.a.shape[1:], dtype=wide)

    def kernel(self, length: int, side: int = 0) -> Float[Tensor, "d length"]:
        """What one side convolves with, without omega: its first ``length`` values."""
        log_q, weight, _ = self._tables()
        return vandermonde(_real(log_q[side]), _real(weight[side]), length)

    def step(self, x_t: Float[Tensor, "b d"], h: Float[Tensor, "b d n"]) -> tuple[Tensor, Tensor]:
        """One token through the first side: y (b, d) and the next state."""
        log_q, weight, omega = self._tables()
        u = x_t.to(h.dtype)
        h = log_q[0].exp() * h + u[..., None]
        return ((weight[0] * h).sum(-1) + omega * u).to(x_t.dtype), h

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        h: Float[Tensor, "b d n"] | None = None,
        resets: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Many tokens: y (b, t, d) and the last state of the first side."""
        with torch.autocast(x.device.type, enabled=False):
            log_q, weight, omega = self._tables()
            start = None if h is None else _real(h)
            y, last = diagonal_lti(x, _real(log_q[0]), _real(weight[0]), start, resets, omega)
            if len(log_q) == 2:
                ends = None if resets is None else resets.roll(-1, 1).flip(1)
                back, _ = diagonal_lti(x.flip(1), _real(log_q[1]), _real(weight[1]), None, ends, None)
                y = y + back.flip(1)
        return y, last[..., 0]

    def _tables(self) -> Tables:
        return self._memo.get(self, self._make_tables)

    def _make_tables(self) -> Tables:
        wide = torch.promote_types(self.a.dtype, torch.float32)
        delta, a, beta, gamma = (x.to(wide) for x in (self.delta, self.a, self.beta, self.gamma))
        p = torch.sigmoid(delta)
        # q above 1e-6: where both sigmoids round to 1 its logarithm is still a number.
        log_q = torch.log1p(-(p * torch.sigmoid(a)).clamp(max=1 - 1e-6))
        return log_q, gamma * p * beta / beta.shape[-1] ** 0.5, self.omega.to(wide)


def _real(x: Tensor) -> Tensor:
    """Real numbers as pairs."""
    return torch.stack([x, torch.zeros_like(x)], -1)
