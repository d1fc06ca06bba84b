"""H3: a shift and a diagonal system between three projections, so that tokens are compared and remembered."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.projection import Projection
from hippodrome.mixers._blocks import fill_in_blocks, steps_within
from hippodrome.mixers._lti import BankState
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.s4d import S4D
from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.causal_conv_update import causal_conv_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

HELD = 1 << 21
"""Numbers of one tensor of a block on the CPU."""
TABLES = 4096
"""Tokens of a block, at least: fewer do not pay for the tables that the diagonal system makes for it."""


class State(NamedTuple):
    """What the two systems remember."""

    window: Float[Tensor, "b w_1 d"]
    """The keys of the last ``taps - 1`` tokens, oldest first: the state of the shift."""
    h: Float[Tensor, "b p p heads n 2"]
    """The diagonal system's state for every product of a key and a value inside a head (see ``_lti``)."""


class H3(Mixer):
    """y = W_o (q * diag(shift(k) * v)) with q, k, v = W x: two linear systems between products.

    Fu, Dao, Saab, Thomas, Rudra, Ré 2022, "Hungry hungry hippos: towards language modeling with state space
    models", arXiv 2212.14052, section 3 and algorithm 1. The shift is the system whose A moves its state by
    one place and whose B is the first unit vector, so its kernel is C itself: ``taps`` free numbers for
    each channel, plus a skip. The diagonal system is S4D with the poles -1/2 + i pi n and zero-order hold.
    In heads of p channels the product is the outer one of key and value, p x p numbers that all go through
    the head's one diagonal system, and the query sums over the key's index. Nothing is nonlinear but the
    two products.

    A token takes O(d (taps + d_state) p) work and the state does not grow. Where no gradient is kept, time
    runs in blocks, so that memory beyond input and output does not grow with the length.

    The shift counts tokens, so there is no ``dt``.

    Args:
        d_model: channels in and out.
        d_state: real size N of the state of each diagonal system; N / 2 complex numbers are kept.
        taps: of the shift, the published d_state of it.
        head_dim: p, channels of a head.
        dt_min: smallest initial step size of the diagonal system.
        dt_max: largest initial step size.

    Raises:
        ValueError: head_dim does not divide d_model, d_state is odd, or the shift has no tap.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        taps: int = 64,
        head_dim: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        check_divides("head_dim", head_dim, "d_model", d_model)
        if taps < 1:
            raise ValueError(f"The shift of H3 needs at least one tap; got taps={taps}. Take 64, say.")
        self.d_model = d_model
        self.head_dim = head_dim
        self.taps = taps
        self.in_proj = Projection(d_model, 3 * d_model)
        # The bounds of Kaiming's uniform start with a = sqrt 5, whose fan-in is the number of taps.
        bound = taps**-0.5
        self.shift = nn.Parameter(torch.empty(d_model, taps).uniform_(-bound, bound))
        self.shift_skip = nn.Parameter(torch.randn(d_model))
        self.system = S4D(d_model // head_dim, d_state, "lin", dt_min=dt_min, dt_max=dt_max, gated=False)
        self.out_proj = Projection(d_model, d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        p = self.head_dim
        window = self.shift.new_zeros(batch, self.taps - 1, self.d_model, dtype=self._wide())
        return State(window, self.system.init_state(batch * p * p).h.unflatten(0, (batch, p, p)))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: the sum over the window, the product with the value, one step, the query."""
        self.refuse_dt(dt_t)
        q, k, v = self.in_proj(x_t).to(state.window.dtype).chunk(3, -1)
        inputs = torch.cat([state.window, k[:, None]], 1)
        k = (inputs * self._weights().T).sum(1)
        y, h = self._remember(self._heads(k)[:, :, None] * self._heads(v)[:, None], state.h)
        y = (self._heads(q)[:, :, None] * y).sum(1).flatten(1)
        return self.out_proj(y.to(x_t.dtype)), State(inputs[:, 1:], h)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns; the window is shifted where it lies."""
        self.refuse_dt(dt_t)
        q, k, v = self.in_proj(x_t).to(state.window.dtype).chunk(3, -1)
        k = causal_conv_update(k.contiguous(), self._weights(), None, state.window)
        y, h = self._remember(self._heads(k)[:, :, None] * self._heads(v)[:, None], state.h)
        state.h.copy_(h)
        y = (self._heads(q)[:, :, None] * y).sum(1).flatten(1)
        return self.out_proj(y.to(x_t.dtype))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: a short convolution and the chunked diagonal system."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._tokens(state, x, resets)
        # Nothing is kept for a backward pass: each block goes all the way before the next one begins.
        row = x.shape[0] * self.d_model * self.head_dim
        length = max(TABLES // x.shape[0], HELD // row, 64) if x.is_cpu else steps_within(row)
        return fill_in_blocks(self._tokens, length, state, x, resets)

    def _tokens(self, state: State, x: Tensor, resets: Tensor | None) -> tuple[Tensor, State]:
        """Outputs and state of all these tokens at once."""
        p = self.head_dim
        q, k, v = self.in_proj(x).chunk(3, -1)
        with torch.autocast(x.device.type, enabled=False):
            wide = state.window.dtype
            k, window = causal_conv(k.to(wide), self._weights(), None, state.window, resets)
            # (b, key's channel, value's channel, t, heads): a row of the diagonal system for each pair.
            k, v = (
                self._heads(k).transpose(1, 2)[:, :, None],
                self._heads(v.to(wide)).transpose(1, 2)[:, None],
            )
            marks = None if resets is None else resets.repeat_interleave(p * p, 0)
            y, after = self.system((k * v).flatten(0, 2), BankState(state.h.flatten(0, 2)), resets=marks)
            y = y.unflatten(0, (-1, p, p))
            q = self._heads(q.to(wide)).transpose(1, 2)[:, :, None]
            y = (q * y).sum(1) if p > 1 else (q * y).squeeze(1)
            y = y.transpose(1, 2).flatten(2)
        return self.out_proj(y.to(x.dtype)), State(window, after.h.unflatten(0, (-1, p, p)))

    def _remember(self, kv: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the diagonal system for the products (b, p, p, heads)."""
        y, after = self.system.step(kv.flatten(0, 2), BankState(h.flatten(0, 2)))
        return y.view(kv.shape), after.h.view(h.shape)

    def _heads(self, x: Tensor) -> Tensor:
        """(..., d) as (..., p, heads): channels of one head lie a stride apart, heads are innermost."""
        return x.unflatten(-1, (self.head_dim, -1))

    def _weights(self) -> Tensor:
        """The taps of the shift (d, taps), oldest first, its skip added to the newest."""
        wide = self._wide()
        taps = self.shift.to(wide).flip(1)
        return torch.cat([taps[:, :-1], taps[:, -1:] + self.shift_skip.to(wide)[:, None]], 1)

    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.shift.dtype, torch.float32)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, A and B of the diagonal system: at most 1e-3, no decay."""
        return self.system.parameter_groups()

    @classmethod
    def example(cls) -> "H3":
        """A small instance."""
        return cls(8, d_state=8, taps=5, head_dim=2)
