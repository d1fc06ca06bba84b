"""Mamba: a diagonal state space whose step sizes, inputs and readouts are chosen by the token."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.definite_projection import DefiniteProjection
from hippodrome.layers.heads import check_divides
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.layers.step_size import StepProjection
from hippodrome.mixers._memo import Memo
from hippodrome.mixers._selective import log_decays, unrolled
from hippodrome.mixers.base import Mixer, ParameterGroup, check_word
from hippodrome.ops import _pairs
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan_update import selective_scan_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

SPECTRA = ("s4d-real", "half", "random", "s4d-lin")
NORMS = ("none", "learned", "weightless")


class State(NamedTuple):
    """What Mamba carries from token to token; e channels of the recurrence."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    h: Float[Tensor, "b e n"] | Float[Tensor, "b e n 2"]
    """The state of the recurrence, in float32 or wider; real and imaginary part where A is complex."""


class Mamba(Mixer):
    """[x | z] = in_proj(u); x = silu(conv(x)); [r | B | C] = x_proj(x); dt = softplus(dt_proj(r));
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t with A = -exp(A_log); y_t = C_t h_t + D x_t; out_proj(y silu(z)).

    Gu, Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", arXiv 2312.00752,
    equations 2a and 2b, algorithm 2, figure 3. A is discretized by zero-order hold, B by Euler's rule.
    Parameters carry the names and shapes of the authors' checkpoints. ``dt`` multiplies the step size after
    softplus. A, D, step sizes and the state stay in float32 whatever autocast does.

    The options after ``dt_floor`` are those of the paper's ablations and of later models. With
    ``norms="learned"`` it is the Mamba of Jamba (Lieber et al. 2024, arXiv 2403.19887), with "weightless"
    that of Falcon-Mamba (Zuo et al. 2024, arXiv 2410.05355).

    Args:
        d_model: d, channels in and out.
        d_state: n, size of each channel's state; conjugate pairs where A is complex.
        taps: of the short convolution.
        expand: channels of the recurrence as a multiple of d_model.
        dt_rank: rank of the map to the step sizes; None takes d / 16, rounded up.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
        d_inner: e, channels of the recurrence, where they are not expand * d_model.
        norms: root-mean-square norms over r, over B and over C before they are used: "none", "learned"
            (parameters dt_layernorm, b_layernorm, c_layernorm) or "weightless".
        norm_eps: added to their mean squares.
        proj_bias: whether the input and the output map have biases.
        conv_bias: whether the short convolution has one.
        select_B: whether B is chosen by the token; otherwise it is a parameter (e, n), one at the start.
        select_C: the same of C, normal at the start.
        groups: of neighbouring channels, with a B and a C for each group that the token chooses.
        A_init: where A starts, -(k + 1) for "s4d-real", -1/2 for "half", -exp of a normal number for
            "random"; "s4d-lin" makes A complex, -1/2 + i k, with A_imag for its imaginary part, and so B, C
            and h: y_t = 2 Re(C_t h_t) + D x_t.
        dynamics: "free", or the sign that C^T B is held to, "positive", "negative" or "mixed", which decides
            whether depth drives tokens apart or to zero (Vo et al. 2025, arXiv 2410.03292; see
            ``layers.definite_projection``).

    Raises:
        ValueError: a word is unknown, the groups do not divide the channels of the recurrence, or dynamics
            are held to a sign beside options that they exclude.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        taps: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        d_inner: int | None = None,
        norms: str = "none",
        norm_eps: float = 1e-6,
        proj_bias: bool = False,
        conv_bias: bool = True,
        select_B: bool = True,
        select_C: bool = True,
        groups: int = 1,
        A_init: str = "s4d-real",
        dynamics: str = "free",
    ) -> None:
        super().__init__()
        check_word("Mamba", "norms", norms, NORMS)
        check_word("Mamba", "A_init", A_init, SPECTRA)
        inner = expand * d_model if d_inner is None else d_inner
        check_divides("groups", groups, "the channels of the recurrence", inner)
        rank = -(-d_model // 16) if dt_rank is None else dt_rank
        self.d_model = d_model
        self.d_state = d_state
        self.dt_rank = rank
        self.groups = groups
        self._memo: Memo[Tensor] = Memo()
        pair = (2,) if A_init == "s4d-lin" else ()
        self.vector = (*((groups,) if groups > 1 else ()), d_state, *pair)
        """The shape of what a token chooses for B and for C."""
        width = math.prod(self.vector)
        self.parts = [rank, width if select_B else 0, width if select_C else 0]
        self.in_proj = Projection(d_model, 2 * inner, bias=proj_bias)
        self.conv1d = ShortConv(inner, taps, silu=True, bias=conv_bias)
        if dynamics == "free":
            self.x_proj: nn.Linear = Projection(inner, sum(self.parts), bias=False)
        else:
            if pair or groups > 1 or not (select_B and select_C):
                raise ValueError(
                    "Mamba's dynamics can be held to a sign where B and C are real, chosen by the token and "
                    f"in one group; got dynamics={dynamics!r} beside other options. Leave one of them out."
                )
            self.x_proj = DefiniteProjection(inner, rank, d_state, dynamics)
        self.dt_proj = StepProjection(rank, inner, dt_min, dt_max, dt_floor)
        self.A_log = nn.Parameter(torch.log(_rates(A_init, inner, d_state)))
        self.A_imag = nn.Parameter(torch.arange(float(d_state)).repeat(inner, 1)) if pair else None
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = Projection(inner, d_model, bias=proj_bias)
        # Real and imaginary part of a constant B start as those of 1, of C each with half the variance.
        fixed = (inner, d_state, *pair)
        ones = torch.ones(inner, d_state)
        ones = torch.stack([ones, torch.zeros_like(ones)], -1) if pair else ones
        self.B = None if select_B else nn.Parameter(ones)
        self.C = None if select_C else nn.Parameter(torch.randn(fixed) * (0.5**0.5 if pair else 1.0))
        weighted, normed = norms == "learned", norms != "none"
        self.dt_layernorm = RMSNorm(rank, norm_eps, weighted=weighted) if normed else None
        self.b_layernorm, self.c_layernorm = (
            RMSNorm(width, norm_eps, groups, weighted=weighted) if normed and chosen else None
            for chosen in (select_B, select_C)
        )

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv1d.init_window(batch)
        pair = () if self.A_imag is None else (2,)
        return State(window, window.new_zeros(batch, *self.A_log.shape, *pair))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: the recurrence as the paper writes it."""
        x, z = self.in_proj(x_t).chunk(2, -1)
        x, window = self.conv1d.step(x, state.window)
        low, B, C = self.select(x)
        dt = self._step_sizes(low, dt_t)
        A = self._rates()
        B, C = (self._of_channels(m).to(dt.dtype) for m in (B, C))
        if self.A_imag is None:
            h = torch.exp(dt[..., None] * A) * state.h
            h = torch.addcmul(h, (dt * x)[..., None], B)
            y = (h * C).sum(-1)
        else:
            h = _pairs.times(_pairs.exp(dt[..., None, None] * A), state.h) + (dt * x)[..., None, None] * B
            y = 2 * _pairs.times(h, C)[..., 0].sum(-1)
        y = y + self.D.to(dt.dtype) * x
        return self.out_proj(y.to(x.dtype) * F.silu(z)), State(window, h)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns."""
        plain = self.A_imag is None and self.B is None and self.C is None
        if torch.is_grad_enabled() or not plain:
            return super().advance_(x_t, state, dt_t=dt_t)
        x, z = self.in_proj(x_t).chunk(2, -1)
        x = self.conv1d.advance_(x, state.window)
        low, B, C = self.select(x)
        rates = self._memo.get(self, self._rates)
        if dt_t is None:
            raw, bias = self.dt_proj(low), self.dt_proj.bias
            y = selective_scan_update(x, raw, rates, B, C, self.D, z, bias, state.h, softplus=True)
        else:
            sizes = self._step_sizes(low, dt_t)
            y = selective_scan_update(x, sizes, rates, B, C, self.D, z, None, state.h)
        return self.out_proj(y)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, the recurrence by the selective scan with softplus, skip and gate inside it."""
        self.check_call(x, state, resets, dt)
        y, state = self.inner(self.in_proj(x), state, resets, dt)
        return self.out_proj(y), state

    def inner(
        self,
        xz: Float[Tensor, "b t _"],
        state: State | None = None,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Float[Tensor, "b t e"], State]:
        """What stands between the two projections: two directions may share those and not this.

        Args:
            xz: what ``in_proj`` gives, (b, t, 2 e).
            state: before the first token.
            resets: as in ``forward``.
            dt: as in ``forward``.
        """
        window, h = (None, None) if state is None else state
        x, z = xz.chunk(2, -1)
        x, window = self.conv1d(x, window, resets)
        y, h = self.selective(x, z, h, resets, dt)
        return y, State(window, h)

    def selective(
        self,
        x: Float[Tensor, "b t e"],
        z: Float[Tensor, "b t e"],
        h: Tensor | None = None,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Float[Tensor, "b t e"], Tensor]:
        """The scan alone, of convolved channels x and gates z, and the state after it."""
        low, B, C = self.select(x)
        A = self._rates()
        if dt is None:
            raw, bias = self.dt_proj(low), self.dt_proj.bias
            return selective_scan(x, raw, A, B, C, self.D, z, bias, h, resets, softplus=True)
        sizes = self._step_sizes(low, dt)
        return selective_scan(x, sizes, A, B, C, self.D, z, None, h, resets)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b e t t"]:
        """That of each channel."""
        self.check_call(x, None, resets)
        low, B, C = self.select(self.conv1d(self.in_proj(x).chunk(2, -1)[0], None, resets)[0])
        return unrolled(self._step_sizes(low, None), self._rates(), B, C, resets)

    def token_maps(self) -> tuple[Tensor, Tensor] | None:
        """S_B and S_C (n, e), which a token is mapped to B and C by; None where they are not of that kind."""
        if isinstance(self.x_proj, DefiniteProjection):
            return self.x_proj.maps()
        if self.A_imag is not None or self.groups > 1 or self.B is not None or self.C is not None:
            return None
        _, S_B, S_C = self.x_proj.weight.split(self.parts)
        return S_B, S_C

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t c"]:
        """Those of each channel and state."""
        self.check_call(x, None)
        low = self.select(self.conv1d(self.in_proj(x).chunk(2, -1)[0], None, None)[0])[0]
        return log_decays(self._step_sizes(low, None), self._rates())

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; they and D without decay.

        Decay would pull every rate towards 1 and every step size towards softplus(0): no prior worth having.
        """
        slow = [self.A_log, self.dt_proj.bias, *([] if self.A_imag is None else [self.A_imag])]
        return [ParameterGroup(slow, max_lr=1e-3, decay=False), ParameterGroup([self.D], decay=False)]

    def select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the map to the step sizes takes, B and C, of any number of tokens; constants as they are."""
        low, B, C = self.x_proj(x).split_with_sizes(self.parts, -1)
        if self.dt_layernorm is not None:
            low = self.dt_layernorm(low)
            B = B if self.b_layernorm is None else self.b_layernorm(B)
            C = C if self.c_layernorm is None else self.c_layernorm(C)
        if len(self.vector) > 1:
            B = B.unflatten(-1, self.vector) if self.B is None else B
            C = C.unflatten(-1, self.vector) if self.C is None else C
        return low, B if self.B is None else self.B, C if self.C is None else self.C

    def _of_channels(self, m: Tensor) -> Tensor:
        """B or C of one token as (b, e, n), with axes of one where rows or channels share it."""
        if m is self.B or m is self.C:
            return m[None]
        return m.repeat_interleave(self.D.numel() // self.groups, 1) if self.groups > 1 else m[:, None]

    def _rates(self) -> Tensor:
        real = -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))
        return real if self.A_imag is None else torch.stack([real, self.A_imag.to(real.dtype)], -1)

    def _step_sizes(self, low: Tensor, dt: Tensor | None) -> Tensor:
        wide = torch.promote_types(self.dt_proj.bias.dtype, torch.float32)
        sizes = F.softplus(self.dt_proj(low).to(wide) + self.dt_proj.bias.to(wide))
        return sizes if dt is None else sizes * dt[..., None].to(wide)

    @classmethod
    def example(cls) -> "Mamba":
        """A small instance."""
        return cls(8, d_state=4)


def _rates(A_init: str, inner: int, d_state: int) -> Tensor:
    """The first decay rates -Re A, (e, n)."""
    if A_init == "random":
        return torch.exp(torch.randn(inner, d_state))
    if A_init == "s4d-real":
        return torch.arange(1.0, d_state + 1).repeat(inner, 1)
    return torch.full((inner, d_state), 0.5)
