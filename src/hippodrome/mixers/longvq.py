"""LongVQ, reconstructed: gated attention over quantized keys and a local window, on moving averages."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.mixers import _blocks_of_keys as layouts
from hippodrome.mixers._attention import slot_positions
from hippodrome.mixers._commitment import Committed, snapshot
from hippodrome.mixers._ema import EMA
from hippodrome.mixers._gau import DistanceBias, QueryKey, leave
from hippodrome.mixers.base import Mixer
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """The averages, the last w tokens, and what is summed by code of all tokens before them."""

    h: Float[Tensor, "b d n"]
    """Fading sums of the inputs."""
    k: Float[Tensor, "b w z"]
    """Quantized keys; token p since the last reset lies in slot p mod w."""
    v: Float[Tensor, "b w h"]
    """Values, likewise."""
    code: Int[Tensor, "b w"]
    """The number of each key in the codebook."""
    counts: Float[Tensor, "b s"]
    """How many tokens before the window have each code."""
    sums: Float[Tensor, "b s h"]
    """The sum of their values."""
    seen: Int[Tensor, "b"]
    """Tokens since the last reset."""


class LongVQ(Mixer):
    """Attention over the last w tokens, q_t . k_s + bias_{t-s}, and over the codes of all before them.

    A reconstruction. Of "LongVQ: long sequence modeling with vector quantization on structured memory" (2024)
    only a description was at hand, no code and no equations: keys are quantized to a fixed codebook so that
    attention over all of the past costs O(t S); a local window with a bias of distances adds the short range;
    a moving average is the structured memory under both; a gate follows. How these are put together here is
    Mega's unit (arXiv 2209.10655, section 3, equations of the gated attention; see ``mixers.mega``) with the
    quantized attention of Lingle 2023, "Transformer-VQ: linear-time transformers via vector quantization",
    arXiv 2309.16354, section 3: since every key k^ is one of S codes, exp(Q K^T) V = exp(Q C^T) (Delta^T V),
    with Delta the one-hot assignments. What is older than the window is then nothing but a count and a sum of
    values for each code, so the state has a constant size. Queries and keys have a root mean square of 1 and
    scores are divided by sqrt(z). No number is claimed for it.

    Gradients reach a key in the window as if it had not been quantized (straight-through), and older ones not
    at all. In training the codebook moves to the running mean of the keys that chose each code (``decay``; a
    buffer, not a parameter), and the commitment term, ``commitment`` times the mean squared distance of a key
    from its code, acts through its gradient, as if it were added to whatever loss is minimised; its value is
    ``commitment_loss``. In evaluation both stand still: only there is ``forward`` a pure function.

    As in Mega the norm belongs to the block around, which adds its own residual.

    Args:
        d_model: channels in and out.
        d_state: averages of each channel.
        d_query: channels z of queries and keys; None takes half of d_model.
        d_value: channels of values; None takes twice d_model.
        codes: size S of the codebook.
        window: tokens w that a query sees as they are, itself among them.
        decay: share of a code's statistics that a training step keeps.
        commitment: weight of the commitment term; 0 for none.

    Raises:
        ValueError: an empty codebook or window, or a decay outside [0, 1).
    """

    recomputable = False

    codebook: Tensor
    code_counts: Tensor
    code_sums: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_query: int | None = None,
        d_value: int | None = None,
        codes: int = 64,
        window: int = 64,
        decay: float = 0.99,
        commitment: float = 1e-4,
    ) -> None:
        super().__init__()
        if codes < 1 or window < 1:
            raise ValueError(
                f"LongVQ needs at least one code and one token of window; got codes={codes} and "
                f"window={window}."
            )
        if not 0 <= decay < 1:
            raise ValueError(
                f"A training step keeps a share of [0, 1) of what codes hold; got decay={decay}."
            )
        self.d_model = d_model
        self.d_query = max(1, d_model // 2) if d_query is None else d_query
        self.d_value = 2 * d_model if d_value is None else d_value
        self.codes = codes
        self.window = window
        self.decay = decay
        self.commitment = commitment
        self.ema = EMA(d_model, d_state)
        self.from_average = Projection(d_model, self.d_query + self.d_value + 2 * d_model)
        self.to_value = Projection(d_model, self.d_value)
        self.from_value = Projection(self.d_value, d_model)
        for layer in (self.from_average, self.to_value, self.from_value):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.query_key = QueryKey(self.d_query)
        self.bias = DistanceBias("simple", window, self.d_query)
        self.register_buffer("codebook", _unit(torch.randn(codes, self.d_query)))
        self.register_buffer("code_counts", torch.ones(codes))
        self.register_buffer("code_sums", self.codebook.clone())

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """No tokens. ``max_length`` changes nothing: the state does not grow."""
        h = self.ema.init_state(batch)
        weight = self.from_value.weight
        k, v = (weight.new_zeros(batch, self.window, size) for size in (self.d_query, self.d_value))
        code = weight.new_zeros(batch, self.window, dtype=torch.int64)
        sums = h.new_zeros(batch, self.codes, self.d_value)
        return State(h, k, v, code, sums[..., 0].clone(), sums, code.new_zeros(batch))

    def quantize(self, k: Float[Tensor, "*tokens z"]) -> tuple[Tensor, Int[Tensor, "*tokens"]]:
        """The nearest code of each key, with the key's own gradient, and that code's number."""
        return self._quantize(k, self.codebook)

    @staticmethod
    def _quantize(k: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
        book = book.to(k.dtype)
        with torch.autocast(k.device.type, enabled=False):  # one product decides which code it is
            # The nearest by |k|^2 - 2 k c + |c|^2, of which the first is the same for all codes.
            code = (k.detach() @ book.mT - 0.5 * book.square().sum(-1)).argmax(-1)
        return book[code] + (k - k.detach()), code

    def commitment_loss(self, x: Sequence, *, resets: Resets | None = None) -> Float[Tensor, ""]:
        """The mean squared distance of the keys of an input from their codes, unweighted."""
        self.check_call(x, None, resets)
        _, k, _, _ = self._project(F.silu(self.ema(x, None, resets)[0]), x)
        return (k - self.quantize(k)[0].detach()).square().mean()

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: the one that leaves the window is counted with its code."""
        self.refuse_dt(dt_t)
        m, h = self.ema.step(x_t, state.h)
        q, k_t, v_t, gates = self._project(F.silu(m), x_t)
        k_t, code_t = self.quantize(k_t)
        slot = (state.seen % self.window)[:, None]
        leaves = (state.seen >= self.window).to(h.dtype)[:, None]
        left = F.one_hot(state.code.gather(1, slot)[:, 0], self.codes).to(h.dtype) * leaves
        v_left = state.v.gather(1, slot[..., None].expand(-1, 1, self.d_value)).to(h.dtype)
        counts = state.counts + left
        sums = state.sums + left[..., None] * v_left
        here = torch.arange(self.window, device=h.device) == slot
        k = torch.where(here[..., None], k_t[:, None].to(state.k.dtype), state.k)
        v = torch.where(here[..., None], v_t[:, None].to(state.v.dtype), state.v)
        code = torch.where(here, code_t[:, None], state.code)
        age = (state.seen[:, None] - slot_positions(state.seen + 1, self.window))[:, None]
        mask = age <= state.seen[:, None, None]
        local = self._scores(q[:, None], k.to(q.dtype)) + self.bias(age, self.window)
        o = self._read(local, mask, v.to(q.dtype), self._scores(q[:, None], self.codebook), counts, sums)
        y_t = leave(x_t, o[:, 0], gates, self.from_value)
        return y_t, State(h, k, v, code, counts, sums, state.seen + 1)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens in blocks of a window: each sees the one before, and the codes of all before that."""
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        state = self.init_state(b) if state is None else state
        m, h = self.ema(x, state.h, resets)
        q, k, v, gates = self._project(F.silu(m), x)
        # In training the codebook is moved below, while the backward pass still needs this one.
        book = snapshot(self.codebook) if self.training else self.codebook
        if self.training and self.commitment:
            k = Committed.apply(k, self._quantize(k, book)[0].detach(), self.commitment)
        raw, (k, code) = k, self._quantize(k, book)
        numbers = layouts.count_off(state.seen, t, resets)
        w = self.window
        layout = layouts.lay(numbers, w, 1, 0, w, state.seen, resets is not None)
        keys, values = layouts.put(layout, state.k, k), layouts.put(layout, state.v, v)
        marks = layouts.put(layout, state.code[..., None], code[..., None])[..., 0]
        asked = layouts.queries(layout, layouts.put(layout, state.k * 0, q))
        counts, sums = self._older(layout, values, marks, state)
        age = layouts.ages(layout)
        mask = layouts.same_stretch(layout) & (age >= 0)
        # Keys of the block before that have left the window are seen as their codes: no bias, no gradient.
        held = layouts.around(layout, keys)
        inside = age < w
        local = torch.where(
            inside, self._scores(asked, held) + self.bias(age, w), self._scores(asked, held.detach())
        )
        o = self._read(local, mask, layouts.around(layout, values), self._scores(asked, book), counts, sums)
        y = leave(x, layouts.take(layout, o, t), gates, self.from_value)
        if self.training:
            self._move_codes(raw, code)
        last = self._after(layout, numbers.last, values, marks, counts, sums)
        held_k, held_v = layouts.store(state.k, k, numbers), layouts.store(state.v, v, numbers)
        held_code = layouts.store(state.code[..., None], code[..., None], numbers)[..., 0]
        return y, State(h, held_k, held_v, held_code, *last, numbers.total)

    def _project(self, m: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Query, key and value of each token, and what is gated: (reset gate, update gate, candidate)."""
        sizes = [self.d_query, self.d_value, self.d_model, self.d_model]
        z, r, u, c = self.from_average(m).split(sizes, -1)
        q, k = self.query_key(F.silu(z))
        return _unit(q), _unit(k), F.silu(self.to_value(x)), (F.silu(r), torch.sigmoid(u), c)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        wide = torch.promote_types(q.dtype, torch.float32)
        return (q @ k.mT.to(q.dtype)).to(wide) / self.d_query**0.5

    @staticmethod
    def _read(
        local: Tensor, mask: Tensor, values: Tensor, scores: Tensor, counts: Tensor, sums: Tensor
    ) -> Tensor:
        """The mean of values by exp(score), where a code stands for ``counts`` tokens of ``sums`` in all.

        exp(Q C^T) (Delta^T V) over its own row sums, beside the window's keys one by one. Exponentials are
        taken below the greatest score; a code that no token has yet weighs nothing, and is smooth there.
        """
        local = local.masked_fill(~mask, torch.finfo(local.dtype).min)
        most = torch.maximum(local.amax(-1, keepdim=True), scores.amax(-1, keepdim=True)).detach()
        near, far = (local - most).exp(), (scores - most).exp()
        with torch.autocast(local.device.type, enabled=False):  # counts and sums are not for bfloat16
            counts, sums = counts.to(near.dtype), sums.to(near.dtype)
            total = near.sum(-1, keepdim=True) + far @ counts[..., None]
            return ((near @ values.to(near.dtype) + far @ sums) / total).to(values.dtype)

    def _older(
        self, layout: layouts.Layout, values: Tensor, marks: Tensor, state: State
    ) -> tuple[Tensor, Tensor]:
        """Counts (b, blocks, S) and sums (b, blocks, S, h) of all that lies before the block before."""
        totals = self._by_code(values, marks, layout.stretch >= 0, state.sums.dtype)
        stretch = layout.stretch.amax(-1)
        here = stretch[:, 1:]
        # Block i adds block i - 2, if it is of the same stretch; the first has what the state brings.
        adds = totals[:, : layout.blocks - 1] * (stretch[:, :-2] == here[:, 1:])[..., None, None]
        adds = F.pad(adds, (0, 0, 0, 0, 1, 0))
        begins = torch.cat([here[:, :1] != 0, here[:, 1:] != here[:, :-1]], 1)
        before = torch.cat([state.sums, state.counts[..., None]], -1)
        running, _ = linear_scan(adds.new_ones(before[0].numel()), adds.flatten(2), before.flatten(1), begins)
        running = running.unflatten(-1, before.shape[1:])
        return running[..., -1], running[..., :-1]

    def _after(
        self,
        layout: layouts.Layout,
        last: Tensor,
        values: Tensor,
        marks: Tensor,
        counts: Tensor,
        sums: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Counts and sums once the last token is in: what its block has, and what left the window since."""
        assert layout.place is not None
        assert layout.rank is not None
        rows = torch.arange(len(values), device=values.device)
        block = layout.rank[:, -1]
        age = (layout.place[:, -1] % self.window)[:, None] + self.window
        age = age - torch.arange(2 * self.window, device=age.device)
        stretch = layouts.around(layout, layout.stretch)[rows, block]
        left = (age >= self.window) & (stretch == last[:, None])
        seen = layouts.around(layout, values)[rows, block], layouts.around(layout, marks)[rows, block]
        more = self._by_code(*seen, left, sums.dtype)
        return counts[rows, block] + more[..., -1], sums[rows, block] + more[..., :-1]

    def _by_code(self, values: Tensor, marks: Tensor, there: Tensor, dtype: torch.dtype) -> Tensor:
        """Delta^T [V, 1]: sums of values (..., m, h) by code, and how many they are: (..., S, h + 1)."""
        one_hot = F.one_hot(marks, self.codes).to(dtype) * there[..., None]
        with torch.autocast(values.device.type, enabled=False):
            return one_hot.mT @ F.pad(values.to(dtype), (0, 1), value=1.0)

    @torch.no_grad()
    def _move_codes(self, k: Tensor, code: Tensor) -> None:
        """Move each code to the running mean of the keys that chose it (arXiv 1711.00937, appendix A.1)."""
        wide = torch.promote_types(self.codebook.dtype, torch.float32)
        one_hot = F.one_hot(code.flatten(), self.codes).to(wide)
        counts = self.decay * self.code_counts.to(wide) + (1 - self.decay) * one_hot.sum(0)
        sums = self.decay * self.code_sums.to(wide) + (1 - self.decay) * one_hot.T @ k.flatten(0, 1).to(wide)
        # A code that nobody chooses fades in both alike, and stays where it is.
        known = (counts > 1e-6)[:, None]
        self.codebook.copy_(
            torch.where(known, sums / counts.clamp(min=1e-6)[:, None], self.codebook.to(wide))
        )
        self.code_counts.copy_(counts)
        self.code_sums.copy_(sums)

    @classmethod
    def example(cls) -> "LongVQ":
        """A small instance."""
        return cls(8, d_state=4, d_query=4, d_value=8, codes=5, window=3)


def _unit(x: Float[Tensor, "*tokens z"]) -> Float[Tensor, "*tokens z"]:
    """Over its root mean square, in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)
