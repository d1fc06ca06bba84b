"""Hydra: Mamba-2 in both directions as one quasiseparable matrix, with a diagonal of its own."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.backbones._pieces import CenteredConv, backwards
from hippodrome.backbones._quasiseparable import quasiseparable
from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers.base import ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps


class Hydra(NotCausal):
    """[z | x B_f C_f B_b C_b | dt_f dt_b] = in_proj(u); x and all B, C = silu(conv(.)), a convolution around
    each token; dt = softplus(dt + dt_bias); y = M x in each head; out_proj(w RMS(y) silu(z)).

    Hwang, Lahoti, Dao, Gu 2024, "Hydra: bidirectional state space models through generalized matrix mixers",
    arXiv 2407.09941. M is quasiseparable (see ``_quasiseparable``): what Mamba-2 does from the tokens before,
    the same from the tokens after, and on the diagonal D + fc_D(x). Both directions share A and dt_bias.
    Parameters carry the names and shapes of the authors' code. A, step sizes and states stay in float32
    whatever autocast does.

    With ``resets`` each piece of a packed row has a matrix of its own. ``dt`` multiplies the step sizes after
    softplus; it is the time since the token before, and for the upper triangle that to the token after, at
    the last token of a piece its own.

    Args:
        d_model: channels in and out.
        d_state: n, the second size of a head's state.
        taps: of the convolution, odd.
        expand: channels of all heads together as a multiple of d_model.
        head_dim: p, channels of a head; None takes 64, or the largest even divisor below it.
        groups: of heads that share B and C.
        chunk: tokens handled as one block of matrix products; changes speed, never the result.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
        dt_low: bound below the step sizes, always.
        dt_high: bound above them, always; None for no bound.

    Raises:
        ValueError: head_dim does not divide expand * d_model, groups does not divide the heads, or taps is
            even.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        taps: int = 7,
        expand: int = 2,
        head_dim: int | None = None,
        groups: int = 1,
        chunk: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        dt_low: float = 0.0,
        dt_high: float | None = None,
    ) -> None:
        super().__init__()
        inner = expand * d_model
        head_dim = head_size(inner) if head_dim is None else head_dim
        check_divides("head_dim", head_dim, "expand * d_model", inner)
        self.heads = inner // head_dim
        check_divides("groups", groups, "the heads", self.heads)
        self.d_model, self.d_state, self.groups, self.chunk = d_model, d_state, groups, chunk
        self.dt_low, self.dt_high = dt_low, dt_high
        each = 2 * groups * d_state
        self.inner_parts = [inner, each, each]
        self.parts = [inner, inner + 2 * each, 2 * self.heads]
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.conv1d = CenteredConv(inner + 2 * each, taps)
        self.dt_bias = nn.Parameter(initial_step_bias(self.heads, dt_min, dt_max, dt_floor))
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.fc_D = Projection(inner, self.heads, bias=False)
        self.norm = GatedRMSNorm(inner, before_gate=True)
        self.out_proj = Projection(inner, d_model, bias=False)

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence; the state handed back is empty."""
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        z, inner, *matrix = self._driven(x, resets, dt)
        return self.out_proj(self.norm(self._mixed(inner, matrix, resets), z)), ()

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """M of each head, diagonal and all."""
        self.check_call(x, None, resets)
        _, _, *matrix = self._driven(x, resets, None)
        (b, t, _), like = x.shape, torch.promote_types(x.dtype, torch.float32)
        unit = torch.eye(t, dtype=like, device=x.device).repeat(1, self.heads).expand(b, -1, -1)
        matrix = [m.to(like) for m in matrix]
        return self._mixed(unit, matrix, resets).unflatten(-1, (self.heads, t)).transpose(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h2"]:
        """dt A of each head below the diagonal, then above it."""
        self.check_call(x, None)
        steps = self._driven(x, None, None)[4]
        return steps * self._rates(steps.dtype).repeat(2)

    def _driven(self, x: Tensor, resets: Tensor | None, dt: Tensor | None) -> list[Tensor]:
        """The gate, what is mixed, and by what: B and C of either direction, step sizes and the diagonal."""
        z, mixed, raw = self.in_proj(x).split_with_sizes(self.parts, -1)
        inner, ahead, back = F.silu(self.conv1d(mixed, resets)).split_with_sizes(self.inner_parts, -1)
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        steps = self._step_sizes(raw.to(wide), resets, dt)
        return [z, inner, ahead, back, steps, self.fc_D(inner).to(wide) + self.D.to(wide)]

    def _mixed(self, inner: Tensor, matrix: list[Tensor], resets: Tensor | None) -> Tensor:
        ahead, back, steps, diagonal = matrix
        sizes = {"groups": self.groups, "d_state": self.d_state, "chunk": self.chunk}
        return quasiseparable(inner, ahead, back, steps, self._rates(steps.dtype), diagonal, resets, **sizes)

    def _rates(self, dtype: torch.dtype) -> Tensor:
        return -torch.exp(self.A_log.to(dtype))

    def _step_sizes(self, raw: Tensor, resets: Tensor | None, dt: Tensor | None) -> Tensor:
        """(b, t, 2 h), those of the upper triangle at their own tokens too."""
        sizes = F.softplus(raw + self.dt_bias.to(raw.dtype).repeat(2)).clamp(self.dt_low, self.dt_high)
        if dt is None:
            return sizes
        times = [dt, backwards(raw, resets, dt)[1].flip(1)]  # type: ignore[union-attr]
        return sizes * torch.stack(times, -1).to(raw.dtype).repeat_interleave(self.heads, -1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; they and D without decay."""
        return [
            ParameterGroup([self.A_log, self.dt_bias], max_lr=1e-3, decay=False),
            ParameterGroup([self.D], decay=False),
        ]

    @classmethod
    def example(cls) -> "Hydra":
        """A small instance."""
        return cls(8, d_state=4, head_dim=4, groups=2, chunk=4)
