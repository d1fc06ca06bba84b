"""Retention: a matrix state that fades at a rate fixed for its head, under rotary positions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.projection import Projection, like
from hippodrome.mixers import _attention as engine
from hippodrome.mixers._matrix_state import retention_rates
from hippodrome.mixers.base import Mixer
from hippodrome.ops.ssd import ssd
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What retention carries from token to token."""

    S: Float[Tensor, "b h v k"]
    """The matrix of each head, in float32 or wider."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset, which positions are counted by."""


class Retention(Mixer):
    """S_n = gamma_h S_{n-1} + v_n (R_n k_n)^T, o_n = S_n R_n q_n / sqrt(k), gamma_h = 1 - 2^(-5-h) in head h;
    out_proj(silu(gate(x)) GroupNorm(o)).

    Sun, Dong, Huang, Ma, Xia, Xue, Wang, Wei 2023, "Retentive network: a successor to transformer for large
    language models", arXiv 2307.08621, equations 5 to 8. R_n turns pairs of channels by the angle n theta as
    rotary positions do (the paper's complex exponential; its xPos factor is the decay itself); positions
    count from the last reset. The state stays in float32 whatever autocast does.

    Args:
        d_model: channels in and out.
        heads: how many matrices, each with a rate of its own.
        expand: channels of all values together as a multiple of d_model.
        rope: whether queries and keys are turned.
        rope_base: the longest wavelength is 2 pi times this.

    Raises:
        ValueError: the heads do not divide d_model, or a head's size is odd under rope.
    """

    def __init__(
        self, d_model: int, heads: int = 4, expand: int = 2, rope: bool = True, rope_base: float = 10000.0
    ) -> None:
        super().__init__()
        check_divides("heads", heads, "d_model", d_model)
        size = d_model // heads
        if rope and size % 2:
            raise ValueError(
                f"Rotary positions turn pairs of channels, so a head's size must be even; got {d_model} "
                f"channels in {heads} heads, {size} each. Choose other heads, or rope=False."
            )
        self.d_model = d_model
        self.heads = heads
        self.size = size
        self.rope = rope
        self.rope_base = rope_base
        values = expand * d_model
        self.parts = [d_model, d_model, values, values]
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.norm = nn.GroupNorm(heads, values)
        self.out_proj = Projection(values, d_model, bias=False)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        weight = like(self.in_proj)
        wide = torch.promote_types(weight.dtype, torch.float32)
        S = weight.new_zeros(batch, self.heads, self.parts[2] // self.heads, self.size, dtype=wide)
        return State(S, torch.zeros(batch, dtype=torch.int64, device=weight.device))

    def reset_rows(self, state: State, rows: Bool[Tensor, "b"]) -> State:
        """The state with the marked rows zero."""
        return State(state.S.masked_fill(rows[:, None, None, None], 0.0), state.seen.masked_fill(rows, 0))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: fade, write, read."""
        self.refuse_dt(dt_t)
        q, k, v, gate = self._project(x_t[:, None], state.seen[:, None])
        q, k, v = (m[:, 0].to(state.S.dtype) for m in (q, k, v))
        gamma = torch.exp(retention_rates(self.heads, state.S))
        S = torch.addcmul(state.S * gamma[:, None, None], v[..., None], k[..., None, :])
        y = (S * q[..., None, :]).sum(-1)
        return self._leave(y, gate[:, 0]), State(S, state.seen + 1)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, by state space duality with one fixed rate a head."""
        self.check_call(x, state, resets, dt)
        S, seen = (None, None) if state is None else state
        number = self._numbers(x, seen, resets)
        # Rows of a fresh call without resets agree, so one row of angles serves all.
        q, k, v, gate = self._project(x, number[:1] if state is None and resets is None else number)
        y, S = self._scan(q, k, v, S, resets)
        return self._leave(y, gate), State(S, number[:, -1] + 1)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """That of each head, R_i q_i . R_j k_j gamma^(i - j) / sqrt(k)."""
        self.check_call(x, None, resets)
        q, k, _, _ = self._project(x, self._numbers(x, None, resets))
        (b, t, _), like = x.shape, torch.promote_types(x.dtype, torch.float32)
        unit = torch.eye(t, dtype=like, device=x.device)[None, :, None].expand(b, t, self.heads, t)
        return self._scan(q, k, unit.contiguous(), None, resets)[0].transpose(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h"]:
        """log gamma of each head, whatever the tokens are."""
        self.check_call(x, None)
        like = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        return retention_rates(self.heads, like).expand(*x.shape[:2], -1)

    def _numbers(self, x: Tensor, seen: Tensor | None, resets: Resets | None) -> Int[Tensor, "b t"]:
        """The position of each token, from the last reset on, with ``seen`` tokens before the first."""
        seen = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device) if seen is None else seen
        if resets is None:
            return seen[:, None] + torch.arange(x.shape[1], device=x.device)
        return engine.stretches(resets, seen)[0]

    def _scan(
        self, q: Tensor, k: Tensor, v: Tensor, S: Tensor | None, resets: Resets | None
    ) -> tuple[Tensor, Tensor]:
        """What queries read of values, and the last matrices."""
        wide = torch.promote_types(v.dtype, torch.float32) if S is None else S.dtype
        steps = torch.ones(v.shape[:-1], dtype=wide, device=v.device)
        return ssd(v, steps, retention_rates(self.heads, steps), k, q, None, S, resets)

    def _project(self, x: Tensor, number: Tensor) -> tuple[Tensor, ...]:
        """Queries and keys turned to their positions, values, and the gate."""
        q, k, v, gate = self.in_proj(x).split(self.parts, -1)
        q, k, v = (m.unflatten(-1, (self.heads, -1)) for m in (q, k, v))
        q = q * self.size**-0.5
        if self.rope:
            q, k = (engine.rotate(m, number, self.rope_base) for m in (q, k))
        return q, k, v, gate

    def _leave(self, y: Tensor, gate: Tensor) -> Tensor:
        """Each head of each token normalized, the gate, a linear map."""
        normed = self.norm(y.to(gate.dtype).flatten(0, -3).flatten(1)).view(gate.shape)
        return self.out_proj(F.silu(gate) * normed)

    @classmethod
    def example(cls) -> "Retention":
        """A small instance."""
        return cls(8, heads=2)
