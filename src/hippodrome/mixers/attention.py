"""Softmax attention over all of the past or a sliding window of it: every state space's rival and partner."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.projection import Projection, like
from hippodrome.mixers import _attention as engine
from hippodrome.mixers.base import Mixer
from hippodrome.ops.attention_update import attention_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """Keys and values in a fixed number of slots: all that ``max_length`` tokens need, or a ring."""

    k: Float[Tensor, "b s kv e"]
    """Keys, turned to their positions; token p since the last reset lies in slot p mod s."""
    v: Float[Tensor, "b s kv e"]
    """Values, likewise."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class GrowingState(NamedTuple):
    """The same with as many slots as there were tokens: every token adds one."""

    k: Float[Tensor, "b s kv e"]
    """Keys, turned to their positions; token p since the last reset lies in slot p."""
    v: Float[Tensor, "b s kv e"]
    """Values, likewise."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class Attention(Mixer):
    """o_t = sum_s softmax_s(scale q_t . k_s) v_s over the tokens s <= t since the last reset.

    Vaswani et al. 2017, arXiv 1706.03762, equation 1, masked to the past; keys and values shared by groups of
    query heads (Ainslie et al. 2023, arXiv 2305.13245, section 2.2); rotary positions (Su et al. 2021, arXiv
    2104.09864, equation 34), counted from the last reset; a window as in Beltagy et al. 2020 (arXiv
    2004.05150, section 3.1).

    Args:
        d_model: channels in and out.
        heads: of queries; None takes heads of 64 channels, or the largest even size below that divides.
        kv_heads: of keys and values; None takes as many as of queries.
        window: how many tokens a query sees, itself among them; None for all.
        rope: whether positions turn queries and keys; without, order shows only through the mask.
        rope_base: the longest rotary wavelength is 2 pi times this.
        rope_share: share of a head's channels, from the first on, that positions turn.
        head_dim: e, channels of a head; None takes d_model / heads.
        scale: of the scores; None takes 1 / sqrt(e).
        bias: whether queries, keys, values and the output have biases.
        mixed: whether a linear map joins the heads; without, they stand side by side and make up d_model.
        out_bias: whether the output has a bias where that is another answer than ``bias``.

    Raises:
        ValueError: heads do not divide d_model and have no size of their own, kv_heads do not divide heads,
            an odd number of channels is to be turned, the window is empty, or heads that no map joins are
            not d_model wide together.
    """

    def __init__(
        self,
        d_model: int,
        heads: int | None = None,
        kv_heads: int | None = None,
        window: int | None = None,
        rope: bool = True,
        rope_base: float = 10000.0,
        rope_share: float = 1.0,
        head_dim: int | None = None,
        scale: float | None = None,
        bias: bool = False,
        mixed: bool = True,
        out_bias: bool | None = None,
    ) -> None:
        super().__init__()
        if heads is None:
            heads = max(1, d_model // (head_size(d_model) if head_dim is None else head_dim))
        if head_dim is None:
            check_divides("heads", heads, "d_model", d_model)
        size = d_model // heads if head_dim is None else head_dim
        if heads < 1 or size < 1:
            raise ValueError(f"Attention has one head of one channel at least; got {heads} of {size}.")
        kv_heads = heads if kv_heads is None else kv_heads
        check_divides("kv_heads", kv_heads, "heads", heads)
        if not 0 < rope_share <= 1:
            raise ValueError(
                f"rope_share is the share of a head's channels that positions turn, above 0 and at most 1; "
                f"got {rope_share}. For none take rope=False."
            )
        turned = int(size * rope_share)
        if rope and (turned % 2 or not turned):
            raise ValueError(
                f"Rotary positions turn pairs of channels, so the channels of a head that they turn must be "
                f"even; got {d_model} channels in {heads} heads, {turned} each. Choose other heads, another "
                f"head_dim or rope_share, or rope=False."
            )
        if not mixed and heads * size != d_model:
            raise ValueError(
                f"Heads that no map joins make up d_model; got {heads} of {size} channels for {d_model}. "
                f"Choose another head_dim, or mixed=True."
            )
        if window is not None and window < 1:
            raise ValueError(
                f"A window holds at least the token itself; got {window}. Take None for all tokens."
            )
        self.d_model = d_model
        self.heads = heads
        self.kv_heads = kv_heads
        self.size = size
        self.window = window
        self.rope = rope
        self.rope_base = rope_base
        self.turned = turned
        self.scale = scale
        self.in_proj = Projection(d_model, (heads + 2 * kv_heads) * size, bias=bias)
        out_bias = bias if out_bias is None else out_bias
        self.out_proj = Projection(heads * size, d_model, bias=out_bias) if mixed else nn.Identity()

    def init_state(self, batch: int, max_length: int | None = None) -> State | GrowingState:
        """No tokens. Slots for ``max_length`` tokens; for a window, its ring; else none, and they grow.

        A cache of ``max_length`` slots refuses more tokens than that after a reset.
        """
        slots = max_length if self.window is None else self.window
        shape = (batch, slots or 0, self.kv_heads, self.size)
        # Keys and values are stored, never summed into, so the weights' own precision does.
        weight = like(self.in_proj)
        k, v, seen = (
            weight.new_zeros(shape),
            weight.new_zeros(shape),
            weight.new_zeros(batch, dtype=torch.int64),
        )
        return GrowingState(k, v, seen) if slots is None else State(k, v, seen)

    def reset_rows(self, state: State | GrowingState, rows: Bool[Tensor, "b"]) -> State | GrowingState:
        """The state with the marked rows emptied; slots stay."""
        mark = rows[:, None, None, None]
        k, v = state.k.masked_fill(mark, 0.0), state.v.masked_fill(mark, 0.0)
        return type(state)(k, v, state.seen.masked_fill(rows, 0))

    def step(
        self,
        x_t: Token,
        state: State | GrowingState,
        *,
        dt_t: Tensor | None = None,
        more_t: Tensor | None = None,
    ) -> tuple[Token, State | GrowingState]:
        """One token over the cache, which is copied; ``advance_`` is the form that does not."""
        self.refuse_dt(dt_t)
        self._check_room(state, 1)
        k, v, seen = state
        if isinstance(state, GrowingState):
            k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
        else:
            k, v = k.clone(), v.clone()
        return self._read(x_t, k, v, seen, more_t), type(state)(k, v, seen + 1)

    def advance_(
        self,
        x_t: Token,
        state: State | GrowingState,
        *,
        dt_t: Tensor | None = None,
        more_t: Tensor | None = None,
    ) -> Token:
        """One token, written into the caller's cache.

        Raises:
            ValueError: the cache has no fixed number of slots.
        """
        self.refuse_dt(dt_t)
        if isinstance(state, GrowingState):
            raise ValueError(
                "A cache that grows cannot be written in place; make the state with "
                "init_state(batch, max_length), or use step."
            )
        made = self.in_proj(x_t) if more_t is None else self.in_proj(x_t) + more_t
        scale = self.size**-0.5 if self.scale is None else self.scale
        turns = engine.frequencies(self.turned // 2, self.rope_base, made.device) if self.rope else None
        ring = self.window is not None
        try:
            y_t = attention_update(made, turns, *state, heads=self.heads, scale=scale, ring=ring)
        except ValueError:
            # This says it with the count and what to do.
            self._check_room(state, 1)
            raise
        return self.out_proj(y_t)

    def forward(
        self,
        x: Sequence,
        state: State | GrowingState | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        more: Float[Tensor, "b t _"] | None = None,
    ) -> tuple[Sequence, State | GrowingState]:
        """Many tokens by fused attention; with a window in time linear in t.

        ``more`` is added to what the map to queries, keys and values gives, which stand side by side: several
        users of one attention may each change that map. ``step`` and ``advance_`` take ``more_t``.
        """
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        fresh = state is None
        state = self.init_state(b) if state is None else state
        self._check_room(state, t)
        plain = fresh and resets is None
        if resets is None:
            resets = torch.zeros(b, t, dtype=torch.bool, device=x.device)
        number, stretch = engine.stretches(resets, state.seen)
        # Rows of a fresh call without resets agree, so one row of angles serves all.
        q, k, v = self._project(x, number[:1] if plain else number, more)
        count = number[:, -1] + 1
        first = count - t
        slots = state.k.shape[1] + (t if isinstance(state, GrowingState) else 0)
        if plain and isinstance(state, GrowingState):
            after: State | GrowingState = GrowingState(k, v, count)
        else:
            held_k = engine.write(state.k, k, slots, first, count)
            held_v = engine.write(state.v, v, slots, first, count)
            after = type(state)(held_k, held_v, count)
        if plain and (self.window is None or t <= self.window):
            y = engine.attend(q, k, v, None, self.scale)
        elif self.window is None:
            before = engine.slot_positions(state.seen, state.k.shape[1])
            keys, values = torch.cat([state.k.to(k.dtype), k], 1), torch.cat([state.v.to(v.dtype), v], 1)
            key_number = torch.cat([before, number], 1)
            key_stretch = torch.cat([torch.zeros_like(before), stretch], 1)
            y = engine.attend_all(q, keys, values, number, stretch, key_number, key_stretch, scale=self.scale)
        else:
            # The ring unrolled: its tokens in the order of time, ending with the newest.
            before = state.seen[:, None] + torch.arange(-self.window, 0, device=x.device)
            index = (before % self.window)[..., None, None].expand_as(state.k)
            keys = torch.cat([state.k.gather(1, index).to(k.dtype), k], 1)
            values = torch.cat([state.v.gather(1, index).to(v.dtype), v], 1)
            key_number = torch.cat([before, number], 1)
            key_stretch = torch.cat([torch.where(before < 0, -2, 0), stretch], 1)
            y = engine.attend_window(
                q, keys, values, number, stretch, key_number, key_stretch, self.window, scale=self.scale
            )
        return self.out_proj(y.flatten(2)), after

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """The weights of the softmax, which here are not hidden."""
        self.check_call(x, None, resets)
        b, t, _ = x.shape
        marks = torch.zeros(b, t, dtype=torch.bool, device=x.device) if resets is None else resets
        number, stretch = engine.stretches(marks, torch.zeros(b, dtype=torch.int64, device=x.device))
        q, k, _ = self._project(x, number)
        wide = torch.promote_types(x.dtype, torch.float32)
        k = k.repeat_interleave(self.heads // self.kv_heads, 2).to(wide)
        scale = self.size**-0.5 if self.scale is None else self.scale
        scores = torch.einsum("bihe,bjhe->bhij", q.to(wide), k) * scale
        age = number[:, :, None] - number[:, None]
        mask = (age >= 0) & (stretch[:, :, None] == stretch[:, None])
        mask = mask if self.window is None else mask & (age < self.window)
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)

    def _project(
        self, x: Tensor, positions: Tensor, more: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (b, t, heads, e), the first two turned to their positions."""
        made = self.in_proj(x) if more is None else self.in_proj(x) + more
        heads = made.unflatten(-1, (-1, self.size))
        turned, v = heads.split([self.heads + self.kv_heads, self.kv_heads], -2)
        if self.rope:
            turned = self._turn(turned, positions)
        q, k = turned.split([self.heads, self.kv_heads], -2)
        return q, k, v

    def _turn(self, x: Tensor, positions: Tensor) -> Tensor:
        """The channels that have positions turned, the others of each head as they are."""
        if self.turned == self.size:
            return engine.rotate(x, positions, self.rope_base)
        first, rest = x.split([self.turned, self.size - self.turned], -1)
        return torch.cat([engine.rotate(first, positions, self.rope_base), rest], -1)

    def _read(self, x_t: Tensor, k: Tensor, v: Tensor, seen: Tensor, more_t: Tensor | None) -> Tensor:
        """Write one token into the given slots, in place, and attend over all that are filled."""
        q, k_t, v_t = self._project(x_t[:, None], seen[:, None], None if more_t is None else more_t[:, None])
        slots = k.shape[1]
        slot = (seen % slots)[:, None, None, None].expand_as(k_t)
        k.scatter_(1, slot, k_t.to(k.dtype))
        v.scatter_(1, slot, v_t.to(v.dtype))
        filled = torch.arange(slots, device=k.device) <= seen[:, None]
        y = engine.attend(q, k.to(q.dtype), v.to(q.dtype), filled[:, None], self.scale)
        return self.out_proj(y.flatten(1))

    def _check_room(self, state: State | GrowingState, tokens: int) -> None:
        """Raise where a cache without a window would overwrite its own past."""
        slots, seen = state.k.shape[1], state.seen
        if isinstance(state, GrowingState) or self.window is not None:
            return
        # On an accelerator reading the count would stall the queue, and under compilation it is not a number.
        known = seen.device.type == "cpu" and not torch.compiler.is_compiling()
        used = int(seen.max()) if known and len(seen) else 0
        if used + tokens > slots:
            raise ValueError(
                f"This cache has {slots} slots, {used} of them filled, and {tokens} tokens more do not fit. "
                "Make the state with a larger init_state(batch, max_length), or without max_length, or "
                "choose a window."
            )

    @classmethod
    def example(cls) -> "Attention":
        """A small instance."""
        return cls(8, heads=4, kv_heads=2)
