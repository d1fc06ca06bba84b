"""Mega: attention by one small head over exponential moving averages, with a reset and an update gate."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.mixers import _attention as engine
from hippodrome.mixers import _blocks_of_keys as layouts
from hippodrome.mixers._ema import EMA
from hippodrome.mixers._gau import ATTENTIONS, DistanceBias, QueryKey, attend, leave, refuse_both_ways
from hippodrome.mixers.base import Mixer, check_word
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """The averages, and keys and values in as many slots as ``max_length`` tokens or a chunk need."""

    h: Float[Tensor, "b d n"]
    """Fading sums of the inputs."""
    k: Float[Tensor, "b s z"]
    """Keys; token p since the last reset lies in slot p mod s."""
    v: Float[Tensor, "b s h"]
    """Values, likewise."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class GrowingState(NamedTuple):
    """The same with as many slots as there were tokens: every token adds one."""

    h: Float[Tensor, "b d n"]
    """Fading sums of the inputs."""
    k: Float[Tensor, "b s z"]
    """Keys; token p since the last reset lies in slot p."""
    v: Float[Tensor, "b s h"]
    """Values, likewise."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class Mega(Mixer):
    """m = silu(EMA(x)), o = f(q k^T + bias) v, c = silu(W_h m + U (r * o)), and x + u (c - x).

    Ma, Zhou, Kong, He, Gui, Neubig, May, Zettlemoyer 2022, "Mega: moving average equipped gated attention",
    arXiv 2209.10655, section 3, equations of the moving average, the gated attention and the output. Queries
    and keys are two scalings of one shared z = silu(W_z m), v = silu(W_v x), r = silu(W_r m) is the reset
    gate and u = sigmoid(W_u m) the update gate: u = 0 hands x through. f is softmax, the Laplace function or
    relu^2, see ``mixers._gau``. With ``chunk`` a query sees the tokens of its own chunk alone, counted from
    the last reset, which takes time linear in t (Mega-chunk); the averages carry what is older.

    Inside the boundary of this mixer is the published layer without its norm: a block puts a norm before it,
    and its own residual around the gated one here.

    Args:
        d_model: channels in and out.
        d_state: averages of each channel.
        d_query: channels z of queries and keys; None takes half of d_model.
        d_value: channels of values; None takes twice d_model.
        attention: "softmax", "laplace" or "relu2".
        chunk: tokens of a chunk; None for attention over all of the past.
        positions: the bias of distances, "simple" (a table) or "rotary".
        max_positions: distances in the table, at most ``chunk``; greater ones share its last number.
        bidirectional: averages from both ends and attention to later tokens too: no state, no step.

    Raises:
        ValueError: an unknown word, an empty chunk or table, or an odd d_query under rotary positions.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_query: int | None = None,
        d_value: int | None = None,
        attention: str = "softmax",
        chunk: int | None = None,
        positions: str = "simple",
        max_positions: int = 1024,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        check_word("Mega", "attention function", attention, ATTENTIONS)
        if chunk is not None and chunk < 1:
            raise ValueError(f"A chunk holds at least one token; got {chunk}. Take None for all of the past.")
        self.d_model = d_model
        self.causal = not bidirectional  # type: ignore[misc]  # known by instance
        self.d_query = max(2, d_model // 4 * 2) if d_query is None else d_query
        self.d_value = 2 * d_model if d_value is None else d_value
        self.attention = attention
        self.chunk = chunk
        self.ema = EMA(d_model, d_state, bidirectional)
        self.from_average = Projection(d_model, self.d_query + self.d_value + 2 * d_model)
        self.to_value = Projection(d_model, self.d_value)
        self.from_value = Projection(self.d_value, d_model)
        for layer in (self.from_average, self.to_value, self.from_value):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.query_key = QueryKey(self.d_query)
        reach = max_positions if chunk is None else min(chunk, max_positions)
        self.bias = DistanceBias(positions, reach, self.d_query, bidirectional)

    def init_state(self, batch: int, max_length: int | None = None) -> State | GrowingState:
        """No tokens. Slots for a chunk, or for ``max_length`` tokens; else none, and they grow."""
        self._refuse_both_ways()
        slots = max_length if self.chunk is None else self.chunk
        # Keys and values are stored, never summed into, so the weights' own precision does.
        weight = self.from_value.weight
        k, v = (weight.new_zeros(batch, slots or 0, size) for size in (self.d_query, self.d_value))
        made = GrowingState if slots is None else State
        return made(self.ema.init_state(batch), k, v, weight.new_zeros(batch, dtype=torch.int64))

    def reset_rows(self, state: State | GrowingState, rows: Bool[Tensor, "b"]) -> State | GrowingState:
        """The state with the marked rows emptied; slots stay."""
        return type(state)(*(x.masked_fill(rows.view(-1, *[1] * (x.dim() - 1)), 0) for x in state))

    def step(
        self, x_t: Token, state: Any, *, dt_t: Tensor | None = None
    ) -> tuple[Token, State | GrowingState]:
        """One token over the cache, which is copied; ``advance_`` is the form that does not."""
        self._check_step(state, dt_t)
        h, k, v, seen = state
        if isinstance(state, GrowingState):
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        else:
            k, v = k.clone(), v.clone()
        y_t, h = self._read(x_t, h, k, v, seen)
        return y_t, type(state)(h, k, v, seen + 1)

    def advance_(self, x_t: Token, state: State | GrowingState, *, dt_t: Tensor | None = None) -> Token:
        """One token, written into the caller's cache.

        Raises:
            ValueError: the cache has no fixed number of slots.
        """
        self._check_step(state, dt_t)
        if isinstance(state, GrowingState):
            raise ValueError(
                "A cache that grows cannot be written in place; make the state with "
                "init_state(batch, max_length), or use step."
            )
        y_t, h = self._read(x_t, *state)
        state.h.copy_(h)
        state.seen.add_(1)
        return y_t

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State | GrowingState | tuple[()]]:
        """Many tokens at once; over chunks in time linear in t."""
        if state is not None:
            self._refuse_both_ways()
        self.check_call(x, state, resets, dt)
        if not self.causal:
            m, _ = self.ema(x, None, resets)
            q, k, v, gates = self._project(F.silu(m), x)
            return leave(x, self._both_ways(q, k, v, resets), gates, self.from_value), ()
        b, t, _ = x.shape
        fresh = state is None and resets is None
        state = self.init_state(b) if state is None else state
        self._check_room(state, t)
        m, h = self.ema(x, state.h, resets)
        q, k, v, gates = self._project(F.silu(m), x)
        if self.chunk is None:
            o, k, v, seen = self._over_all(q, k, v, state, resets, fresh)
        else:
            numbers = layouts.count_off(state.seen, t, resets)
            if fresh:
                layout = layouts.lay_in_order(t, self.chunk, 0, 0, x.device)
            else:
                layout = layouts.lay(numbers, self.chunk, 0, 0, self.chunk, state.seen, resets is not None)
            o = self._in_chunks(q, k, v, layout, state)
            k, v = layouts.store(state.k, k, numbers), layouts.store(state.v, v, numbers)
            seen = numbers.total
        return leave(x, o, gates, self.from_value), type(state)(h, k, v, seen)

    def _project(self, m: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Query, key and value of each token, and what is gated: (reset gate, update gate, candidate)."""
        sizes = [self.d_query, self.d_value, self.d_model, self.d_model]
        z, r, u, c = self.from_average(m).split(sizes, -1)
        q, k = self.query_key(F.silu(z))
        return q, k, F.silu(self.to_value(x)), (F.silu(r), torch.sigmoid(u), c)

    def _read(self, x_t: Tensor, h: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Write one token into the given slots, in place, and attend over all that it sees."""
        m, h = self.ema.step(x_t, h)
        q, k_t, v_t, gates = self._project(F.silu(m), x_t)
        slots = k.shape[1]
        slot = (seen % slots)[:, None]
        k.scatter_(1, slot[..., None].expand(-1, 1, self.d_query), k_t[:, None].to(k.dtype))
        v.scatter_(1, slot[..., None].expand(-1, 1, self.d_value), v_t[:, None].to(v.dtype))
        # A chunk fills its slots from the first on, and so does a cache that holds everything.
        age = (slot - torch.arange(slots, device=k.device))[:, None]
        bias = self.bias(age, slots)
        o = attend(q[:, None], k.to(q.dtype), v.to(q.dtype), bias, age >= 0, self.attention)
        return leave(x_t, o[:, 0], gates, self.from_value), h

    def _over_all(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: State | GrowingState,
        resets: Tensor | None,
        fresh: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Attention over everything since the last reset, and the cache after it."""
        b, t, _ = q.shape
        marks = torch.zeros(b, t, dtype=torch.bool, device=q.device) if resets is None else resets
        number, stretch = engine.stretches(marks, state.seen)
        count = number[:, -1] + 1
        if fresh:
            age, mask = self._distances(number[:1], number[:1])
            o = attend(q, k, v, self.bias(age, t), mask, self.attention)
        else:
            before = engine.slot_positions(state.seen, state.k.shape[1])
            keys, values = torch.cat([state.k.to(k.dtype), k], 1), torch.cat([state.v.to(v.dtype), v], 1)
            age, mask = self._distances(number, torch.cat([before, number], 1))
            mask &= torch.cat([torch.zeros_like(before), stretch], 1)[:, None] == stretch[:, :, None]
            o = attend(q, keys, values, self.bias(age, keys.shape[1]), mask, self.attention)
        slots = state.k.shape[1] + (t if isinstance(state, GrowingState) else 0)
        held_k, held_v = (
            engine.write(old[:, :, None], new[:, :, None], slots, count - t, count)[:, :, 0]
            for old, new in ((state.k, k), (state.v, v))
        )
        return o, held_k, held_v, count

    @staticmethod
    def _distances(number: Tensor, key_number: Tensor) -> tuple[Int[Tensor, "b t s"], Bool[Tensor, "b t s"]]:
        """How far back each key lies, and whether it is there and not ahead."""
        age = number[:, :, None] - key_number[:, None]
        return age, (age >= 0) & (key_number >= 0)[:, None]

    def _in_chunks(
        self, q: Tensor, k: Tensor, v: Tensor, layout: layouts.Layout, state: State | GrowingState | None
    ) -> Tensor:
        """Attention within chunks; without a state over all of each chunk."""
        age = layouts.ages(layout)
        mask = layouts.same_stretch(layout)
        if self.causal:
            mask = mask & (age >= 0)
        held_k, held_v = (None, None) if state is None else (state.k, state.v)
        keys, values = layouts.put(layout, held_k, k), layouts.put(layout, held_v, v)
        asked = layouts.put(layout, None if held_k is None else torch.zeros_like(held_k), q)
        o = attend(asked, keys, values, self.bias(age, layout.size), mask, self.attention)
        return layouts.take(layout, o, q.shape[1])

    def _both_ways(self, q: Tensor, k: Tensor, v: Tensor, resets: Tensor | None) -> Tensor:
        """Attention to earlier and later tokens of the same piece, or of the same chunk of it."""
        b, t, _ = q.shape
        if self.chunk is None:
            age = torch.arange(t, device=q.device)[:, None] - torch.arange(t, device=q.device)
            piece = q.new_zeros(1, t, dtype=torch.int64) if resets is None else resets.cumsum(1)
            mask = piece[:, :, None] == piece[:, None]
            return attend(q, k, v, self.bias(age, t), mask, self.attention)
        if resets is None:
            layout = layouts.lay_in_order(t, self.chunk, 0, 0, q.device)
        else:
            nothing = q.new_zeros(b, dtype=torch.int64)
            numbers = layouts.count_off(nothing, t, resets)
            layout = layouts.lay(numbers, self.chunk, 0, 0, 0, nothing, True)
        return self._in_chunks(q, k, v, layout, None)

    def _check_step(self, state: Any, dt_t: Tensor | None) -> None:
        self._refuse_both_ways()
        self.refuse_dt(dt_t)
        self._check_room(state, 1)

    def _refuse_both_ways(self) -> None:
        """Raise where there is neither a state nor a step."""
        if not self.causal:
            refuse_both_ways("Mega")

    def _check_room(self, state: State | GrowingState, tokens: int) -> None:
        """Raise where a cache of all of the past would overwrite its own."""
        if isinstance(state, GrowingState) or self.chunk is not None:
            return
        slots, seen = state.k.shape[1], state.seen
        # On an accelerator reading the count would stall the queue, and under compilation it is not a number.
        known = seen.device.type == "cpu" and not torch.compiler.is_compiling()
        used = int(seen.max()) if known and len(seen) else 0
        if used + tokens > slots:
            raise ValueError(
                f"This cache has {slots} slots, {used} of them filled, and {tokens} tokens more do not fit. "
                "Make the state with a larger init_state(batch, max_length), or without max_length, or "
                "choose a chunk."
            )

    @classmethod
    def example(cls) -> "Mega":
        """A small instance."""
        return cls(8, d_state=4, d_query=4, d_value=8)
