"""Gated DeltaNet, and DeltaNet without the gate: a matrix state that replaces what it holds under a key."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers._matrix_state import NO_GATE, Channels, MatrixState, of_length_one
from hippodrome.mixers.base import ParameterGroup
from hippodrome.ops.delta_rule import delta_rule
from hippodrome.ops.delta_rule_update import delta_rule_update
from hippodrome.shapes import Resets, Sequence


class Replacement(NamedTuple):
    """What one token does to the matrices, for any number of tokens (the leading axes)."""

    q: Float[Tensor, "*tokens h k"]
    """Queries of length one, over the root of their size."""
    k: Float[Tensor, "*tokens h k"]
    """Keys of length one."""
    v: Float[Tensor, "*tokens h v"]
    """Values: what replaces what is stored."""
    beta: Float[Tensor, "*tokens h"]
    """How much of it is replaced, in float32 or wider."""
    log_decay: Float[Tensor, "*tokens h"] | None
    """Logarithm of the gate, in float32 or wider; None without a gate."""


class GatedDeltaNet(MatrixState):
    """[q k v | z | b | a] = in_proj(x); q k v = silu(conv(q k v)), q and k then of length one;
    beta = sigmoid(b); alpha = exp(-exp(A_log) softplus(a + dt_bias)); in each head
    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T, o_t = S_t^T q_t / sqrt(k);
    out_proj(RMS(o) silu(z)).

    Yang, Kautz, Hatamizadeh 2024, "Gated delta networks: improving Mamba2 with delta rule", arXiv 2412.06464,
    equation 10 and section 3.4. Without the gate (alpha = 1): Yang, Wang, Zhang, Shen, Kim 2024,
    "Parallelizing linear transformers with the delta rule over sequence length", arXiv 2406.06484, section 3.
    A, the step sizes and the state stay in float32 whatever autocast does.

    Args:
        d_model: channels in and out.
        heads: how many matrices.
        head_dim: channels of a query or key; None takes d_model / heads.
        expand: channels of a value as a multiple of head_dim.
        taps: of the short convolution.
        gated: whether the state also decays; False gives DeltaNet.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
        A_max: largest decay rate at the start; from zero on they are uniform.

    Raises:
        ValueError: head_dim is None and the heads do not divide d_model.
    """

    def __init__(
        self,
        d_model: int,
        heads: int = 4,
        head_dim: int | None = None,
        expand: int = 1,
        taps: int = 4,
        gated: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        A_max: float = 16.0,
    ) -> None:
        super().__init__()
        if head_dim is None:
            check_divides("heads", heads, "d_model", d_model)
            head_dim = d_model // heads
        self.d_model = d_model
        self.heads = heads
        self.matrix = (head_dim, expand * head_dim)
        self.gated = gated
        keys, values = heads * head_dim, heads * expand * head_dim
        self.channels = [keys, keys, values]
        self.parts = [2 * keys + values, values, heads, heads if gated else 0]
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.conv = ShortConv(self.parts[0], taps, silu=True)
        if gated:
            self.dt_bias = nn.Parameter(initial_step_bias(heads, dt_min, dt_max, dt_floor))
            # Uniform on (0, A_max]: the logarithm of zero would be a rate that never learns.
            self.A_log = nn.Parameter(torch.log(A_max * (1 - torch.rand(heads))))
        self.norm = RMSNorm(self.matrix[1])
        self.out_proj = Projection(values, d_model, bias=False)

    def project(self, x: Channels) -> tuple[Channels, tuple[Tensor, ...]]:
        """Queries, keys and values for the convolution; the output gate, beta and the step size set aside."""
        mixed, *side = self.in_proj(x).split_with_sizes(self.parts, -1)
        return mixed, tuple(side)

    def drive(self, inner: Channels, side: tuple[Tensor, ...], dt: Tensor | None) -> Replacement:
        """Lengths of one, beta, and the gate from its step size."""
        q, k, v = (m.unflatten(-1, (self.heads, -1)) for m in inner.split_with_sizes(self.channels, -1))
        _, beta, raw = side
        wide = torch.promote_types(beta.dtype, torch.float32)
        log_decay = None
        if self.gated:
            wide = torch.promote_types(wide, self.dt_bias.dtype)
            log_decay = -torch.exp(self.A_log.to(wide)) * F.softplus(raw.to(wide) + self.dt_bias.to(wide))
        q = of_length_one(q) * self.matrix[0] ** -0.5
        return Replacement(q, of_length_one(k), v, beta.to(wide).sigmoid(), log_decay)

    def write(self, drive: Replacement, S: Tensor) -> tuple[Tensor, Tensor]:
        """S = alpha S; S = S + k (beta (v - S^T k))^T; o = S^T q."""
        q, k, v = (m.to(drive.beta.dtype) for m in drive[:3])
        if drive.log_decay is not None:
            S = S * torch.exp(drive.log_decay)[..., None, None]
        stored = (S * k[..., None]).sum(-2)
        S = torch.addcmul(S, k[..., None], (drive.beta[..., None] * (v - stored))[..., None, :])
        return (S * q[..., None]).sum(-2), S

    def write_(self, inner: Channels, side: tuple[Tensor, ...], dt: Tensor | None, S: Tensor) -> Tensor:
        """The rule for one token in place."""
        return delta_rule_update(*self.drive(inner, side, dt), S).to(inner.dtype)

    def scan(self, drive: Replacement, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The same in chunks."""
        return delta_rule(*drive, S, resets)

    def readout(self, y: Tensor, side: tuple[Tensor, ...]) -> Channels:
        """A norm over each head, the gate, a linear map."""
        return self.out_proj(self.norm(y).flatten(-2) * F.silu(side[0]))

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h"]:
        """Those of the gate, one a head; what the rule replaces is not counted.

        Raises:
            ValueError: there is no gate.
        """
        if not self.gated:
            raise ValueError(NO_GATE)
        self.check_call(x, None)
        return self._driven(x, None).log_decay

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most and without decay."""
        if not self.gated:
            return []
        return [ParameterGroup([self.A_log, self.dt_bias], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "GatedDeltaNet":
        """A small instance."""
        return cls(8, heads=2, head_dim=3, expand=2)
