"""Gated linear attention: a matrix state whose every key channel decays at a rate chosen by the token."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.layers.heads import check_divides
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import NoConv
from hippodrome.mixers._matrix_state import Channels, Drive, MatrixState
from hippodrome.ops.gla import gla
from hippodrome.ops.gla_update import gla_update
from hippodrome.shapes import Resets


class GatedLinearAttention(MatrixState):
    """alpha_t = sigmoid(W_2 W_1 x_t + b)^(1/16); S_t = diag(alpha_t) S_{t-1} + k_t v_t^T; o_t = S_t^T q_t in
    each head; out_proj(RMS(o) silu(gate(x))).

    Yang, Wang, Shen, Panda, Kim 2023, "Gated linear attention transformers with hardware-efficient training",
    arXiv 2312.06635, equation 3 and section 4.4, with a root-mean-square norm for its layer norm and queries
    scaled by the root of the key size. Keys are half as wide as values, as in the paper. With ``tied_keys``
    k_t = 1 - alpha_t in place of a map of its own: what fades makes room for what is written (Qin, Yang, Sun,
    Shen, Li, Sun, Zhong 2024, "HGRN2: gated linear RNNs with state expansion", arXiv 2404.07904), with a root
    of 1 there, and without that paper's lower bounds of the decays, which are shared between layers.

    Args:
        d_model: channels in and out.
        heads: how many matrices.
        gate_rank: rank of the map to the decays.
        temperature: the root taken of every decay, so that memories start long.
        tied_keys: whether keys are one minus the decays.

    Raises:
        ValueError: the heads do not divide half of d_model.
    """

    def __init__(
        self,
        d_model: int,
        heads: int = 4,
        gate_rank: int = 16,
        temperature: float = 16.0,
        tied_keys: bool = False,
    ) -> None:
        super().__init__()
        keys = d_model // 2
        check_divides("heads", heads, "half of d_model", keys)
        check_divides("heads", heads, "d_model", d_model)
        self.d_model = d_model
        self.heads = heads
        self.matrix = (keys // heads, d_model // heads)
        self.temperature = temperature
        self.tied_keys = tied_keys
        self.parts = [keys, 0 if tied_keys else keys, d_model, d_model, gate_rank]
        self.conv = NoConv(d_model)
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.decay_proj = Projection(gate_rank, keys)
        self.norm = RMSNorm(self.matrix[1])
        self.out_proj = Projection(d_model, d_model, bias=False)

    def project(self, x: Channels) -> tuple[Channels, tuple[Tensor, ...]]:
        """The input as it is for the convolution that is not there; every projection set aside."""
        return x, self.in_proj(x).split_with_sizes(self.parts, -1)

    def drive(self, inner: Channels, side: tuple[Tensor, ...], dt: Tensor | None) -> Drive:
        """Queries, keys, values by linear maps, decays by the low-rank one."""
        q, k, v, _, low = side
        raw = self.decay_proj(low)
        log_decay = F.logsigmoid(raw.to(torch.promote_types(raw.dtype, torch.float32))) / self.temperature
        q, v, log_decay = (m.unflatten(-1, (self.heads, -1)) for m in (q, v, log_decay))
        k = -torch.expm1(log_decay).to(v.dtype) if self.tied_keys else k.unflatten(-1, (self.heads, -1))
        return Drive(q * self.matrix[0] ** -0.5, k, v, log_decay)

    def write(self, drive: Drive, S: Tensor) -> tuple[Tensor, Tensor]:
        """S = diag(alpha) S + k v^T; o = S^T q."""
        q, k, v, log_decay = drive
        q, k, v = (m.to(log_decay.dtype) for m in (q, k, v))
        S = torch.addcmul(S * torch.exp(log_decay)[..., None], k[..., None], v[..., None, :])
        return (S * q[..., None]).sum(-2), S

    def write_(self, inner: Channels, side: tuple[Tensor, ...], dt: Tensor | None, S: Tensor) -> Tensor:
        """The rule for one token in place."""
        return gla_update(*self.drive(inner, side, dt), S).to(inner.dtype)

    def scan(self, drive: Drive, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The same in chunks."""
        return gla(*drive, S, resets)

    def readout(self, y: Tensor, side: tuple[Tensor, ...]) -> Channels:
        """A norm over each head, the gate, a linear map."""
        return self.out_proj(self.norm(y).flatten(-2) * F.silu(side[3]))

    @classmethod
    def example(cls) -> "GatedLinearAttention":
        """A small instance."""
        return cls(8, heads=2, gate_rank=3)
