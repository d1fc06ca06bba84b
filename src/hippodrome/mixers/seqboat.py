"""SeqBoat: a router decides for each token whether attention is spent on it, over moving averages."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.mixers import _blocks_of_keys as layouts
from hippodrome.mixers._attention import slot_positions
from hippodrome.mixers._ema import EMA
from hippodrome.mixers._gau import DistanceBias, QueryKey, attend, refuse_both_ways
from hippodrome.mixers.base import Mixer, check_word
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """The averages, and the last w activated tokens."""

    h: Float[Tensor, "b d n"]
    """Fading sums of the inputs."""
    k: Float[Tensor, "b w z"]
    """Keys of activated tokens; number p since the last reset lies in slot p mod w."""
    v: Float[Tensor, "b w h"]
    """Values, likewise."""
    place: Int[Tensor, "b w"]
    """Which token of all since the last reset each of them was."""
    active: Int[Tensor, "b"]
    """Activated tokens since the last reset."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class Activation(NamedTuple):
    """Where a layer spends attention."""

    active: Bool[Tensor, "b t"]
    """Whether the router activates the unit on a token."""
    probability: Float[Tensor, "b t"]
    """The router's probability for that."""


class SeqBoat(Mixer):
    """m = silu(EMA(x)), a = softmax(W_a m / tau), silu(W_h m + p A(m) + x) with p = a_1 if a_1 > a_0, else 0.

    Ren, Liu, Wang, Xu, Zhu, Zhai 2023, "Sparse modular activation for efficient sequence modeling", arXiv
    2306.11197, section 3, equations of sparse modular activation: the module A is a gated attention unit that
    only activated tokens enter. Theirs are packed to the left and attend to each other: z, r, v = silu(W m),
    q and k two scalings of z, and an activated token sees itself and the ``window`` activated ones before it,
    however long ago they were. So a call costs time linear in t, and attention as much as was activated. The
    probability p multiplies what the unit gives, which is how the router learns; tau = exp(theta) is learned
    too.

    Inside the boundary of this mixer is the published layer without its norm: a block puts a norm before it,
    and a residual of its own around it. Router probabilities are float32 at least. A tie activates nothing.

    Args:
        d_model: channels in and out.
        d_state: averages of each channel.
        d_query: channels z of queries and keys; None takes half of d_model.
        d_value: channels of values; None takes twice d_model.
        attention: "softmax" or "relu2", with scores over the window's size.
        window: activated tokens that an activated one looks back on (and ahead, if bidirectional).
        temperature: tau starts at this times sqrt(d_model).
        local_positions: whether distances count activated tokens ("local_pos" in the reference code); else
            all tokens.
        max_positions: distances in the table; greater ones share its last number.
        bidirectional: averages from both ends and a window ahead too: no state, no step.

    Raises:
        ValueError: an unknown word, an empty window or table, a temperature that is not positive.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_query: int | None = None,
        d_value: int | None = None,
        attention: str = "softmax",
        window: int = 128,
        temperature: float = 1.0,
        local_positions: bool = False,
        max_positions: int = 1024,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        check_word("SeqBoat", "attention function", attention, ("softmax", "relu2"))
        if window < 1:
            raise ValueError(f"A window looks back on one activated token at least; got {window}.")
        if temperature <= 0:
            raise ValueError(f"The router divides by its temperature, which is positive; got {temperature}.")
        self.d_model = d_model
        self.causal = not bidirectional  # type: ignore[misc]  # known by instance
        self.d_query = max(1, d_model // 2) if d_query is None else d_query
        self.d_value = 2 * d_model if d_value is None else d_value
        self.attention = attention
        self.window = window
        self.local_positions = local_positions
        self.ema = EMA(d_model, d_state, bidirectional)
        self.to_router = Projection(d_model, 2 + d_model)
        self.to_unit = Projection(d_model, self.d_query + 2 * self.d_value)
        self.from_unit = Projection(self.d_value, d_model)
        for layer in (self.to_router, self.to_unit, self.from_unit):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(layer.bias)
        self.theta = nn.Parameter(torch.tensor(temperature * d_model**0.5).log())
        self.query_key = QueryKey(self.d_query)
        reach = window + 1 if local_positions else max_positions
        self.bias = DistanceBias("simple", reach, self.d_query, bidirectional)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """No tokens. ``max_length`` changes nothing: the state does not grow."""
        self._refuse_both_ways()
        # Keys and values are stored, never summed into, so the weights' own precision does.
        weight = self.from_unit.weight
        k, v = (weight.new_zeros(batch, self.window, size) for size in (self.d_query, self.d_value))
        place = weight.new_zeros(batch, self.window, dtype=torch.int64)
        return State(self.ema.init_state(batch), k, v, place, *place.new_zeros(2, batch))

    def activation(
        self, x: Sequence, state: State | None = None, *, resets: Resets | None = None
    ) -> Activation:
        """Where attention is spent on an input: which tokens are activated, and how probable that was."""
        self.check_call(x, state, resets)
        m, _ = self.ema(x, None if state is None else state.h, resets)
        _, p, active = self._route(F.silu(m))
        return Activation(active, p)

    def step(self, x_t: Token, state: Any, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token; an activated one attends and is kept."""
        self._refuse_both_ways()
        self.refuse_dt(dt_t)
        m, h = self.ema.step(x_t, state.h)
        m = F.silu(m)
        hx, p, active = self._route(m)
        q, k_t, v_t, r = self._project(m)
        ring = slot_positions(state.active, self.window)
        local = self.local_positions
        age = state.active[:, None] - ring if local else state.seen[:, None] - state.place
        age = F.pad(age, (0, 1))[:, None]
        mask = F.pad(ring >= 0, (0, 1), value=True)[:, None]
        keys = torch.cat([state.k.to(q.dtype), k_t[:, None]], 1)
        values = torch.cat([state.v.to(q.dtype), v_t[:, None]], 1)
        o = self._attend(q[:, None], keys, values, age, mask)[:, 0]
        y = self._leave(self.from_unit(o * r), torch.where(active, p, 0.0), hx, x_t)
        slot = torch.arange(self.window, device=p.device)
        here = (slot == (state.active % self.window)[:, None]) & active[:, None]
        k = torch.where(here[..., None], k_t[:, None].to(state.k.dtype), state.k)
        v = torch.where(here[..., None], v_t[:, None].to(state.v.dtype), state.v)
        place = torch.where(here, state.seen[:, None], state.place)
        return y, State(h, k, v, place, state.active + active, state.seen + 1)

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State | tuple[()]]:
        """Many tokens: activated ones packed into blocks of a window, each of which sees the block before."""
        if state is not None:
            self._refuse_both_ways()
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        m, h = self.ema(x, None if state is None else state.h, resets)
        m = F.silu(m)
        hx, p, active = self._route(m)
        nothing = active.new_zeros(b, dtype=torch.int64)
        seen, before = (nothing, nothing) if state is None else (state.seen, state.active)
        tokens = layouts.count_off(seen, t, resets)
        numbers, source, went = layouts.pack(layouts.count_off(before, t, resets, active))
        # From here on their number is what the work depends on.
        q, k, v, r = self._project(_gather(m, source))
        place = tokens.number.gather(1, source)[..., None]
        o = self._look_back(q, k, v, place, numbers, state, resets is not None)
        unit = _gather(self.from_unit(o * r), went)
        y = self._leave(unit, torch.where(active, p, 0.0), hx, x)
        if not self.causal:
            return y, ()
        state = self.init_state(b) if state is None else state
        held = (
            layouts.store(old, new, numbers)
            for old, new in ((state.k, k), (state.v, v), (state.place[..., None], place))
        )
        k, v, place = held
        return y, State(h, k, v, place[..., 0], numbers.total, tokens.total)

    def _route(self, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The linear branch, the probability that the unit is taken, and whether it is."""
        logits, hx = self.to_router(m).split([2, self.d_model], -1)
        wide = torch.promote_types(logits.dtype, torch.float32)
        p = (logits.to(wide) / self.theta.to(wide).exp()).softmax(-1)[..., 1]
        return hx, p, logits[..., 1] > logits[..., 0]

    def _project(self, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key, value and reset gate of each token."""
        sizes = [self.d_query, self.d_value, self.d_value]
        z, v, r = F.silu(self.to_unit(m)).split(sizes, -1)
        return *self.query_key(z), v, r

    def _look_back(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        place: Tensor,
        numbers: layouts.Numbers,
        state: State | None,
        resets: bool,
    ) -> Tensor:
        """Attention of the activated tokens (b, m, ...) over their window."""
        ahead = 0 if self.causal else 1
        if state is None:
            held_k = held_v = held_place = None
            before = numbers.total.new_zeros(len(q))
        else:
            held_k, held_v, held_place, before = state.k, state.v, state.place[..., None], state.active
        held = 0 if state is None else self.window
        layout = layouts.lay(numbers, self.window, 1, ahead, held, before, resets)
        asked = layouts.queries(layout, layouts.put(layout, None if held_k is None else held_k * 0, q))
        keys = layouts.around(layout, layouts.put(layout, held_k, k))
        values = layouts.around(layout, layouts.put(layout, held_v, v))
        age = layouts.ages(layout)
        mask = layouts.same_stretch(layout) & (age <= self.window) & (age >= -ahead * self.window)
        if not self.local_positions:
            at = layouts.put(layout, held_place, place)
            age = layouts.queries(layout, at) - layouts.around(layout, at).mT
        o = self._attend(asked, keys, values, age, mask)
        return layouts.take(layout, o, q.shape[1])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, age: Tensor, mask: Tensor) -> Tensor:
        length = float(self.window if self.causal else 2 * self.window)
        return attend(q, k, v, self.bias(age, self.bias.reach), mask, self.attention, length)

    def _leave(self, unit: Tensor, p: Tensor, hx: Tensor, x: Tensor) -> Tensor:
        return F.silu(hx + p[..., None] * unit + x).to(x.dtype)

    def _refuse_both_ways(self) -> None:
        """Raise where there is neither a state nor a step."""
        if not self.causal:
            refuse_both_ways("SeqBoat")

    @classmethod
    def example(cls) -> "SeqBoat":
        """A small instance."""
        return cls(8, d_state=4, d_query=4, d_value=8, window=3, temperature=0.1)


def _gather(x: Float[Tensor, "b t e"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m e"]:
    """The tokens of these numbers."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
