"""HiSS: a hierarchy of two stacks, one over the samples of each chunk of time, one over the chunks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones._rows import join, overwrite, select, take
from hippodrome.backbones.stack import Stack
from hippodrome.layers.projection import Projection
from hippodrome.mixers._attention import stretches
from hippodrome.mixers.base import ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What both levels carry."""

    low: tuple
    high: tuple
    tokens: Int[Tensor, "b"]
    """How many there were since the last reset."""
    elapsed: Float[Tensor, "b"]
    """The sum of the time steps of the chunk that is not yet whole."""
    held: Float[Tensor, "b e"]
    """The upper stack's last output; zeros before the first whole chunk."""


class HiSS(nn.Module):
    """y_t = high(low(chunk 1)_end, .. low(chunk j)_end), j the last chunk of ``chunk`` tokens that is whole.

    Bhirangi, Wang, Pattabiraman, Majidi, Gupta, Hellebrekers, Pinto 2024, "Hierarchical state space models
    for continuous sequence-to-sequence modeling", arXiv 2402.10211. The lower stack starts afresh in every
    chunk, and its output at the chunk's last token is the chunk's feature; the upper stack runs over the
    features. In the paper there is one output a chunk. Here every token has one, so that the hierarchy
    stands where any backbone may: between the ends of chunks the last one is held, and a target that exists
    once a chunk is asked for at its end. A reset begins a chunk. With ``dt`` a chunk's step is the mean of
    its tokens'.

    Args:
        low: the stack over samples; its width is the width of input and output.
        high: the stack over chunks.
        chunk: tokens of a chunk.

    Raises:
        ValueError: a chunk below one token, or a stack that reads later tokens.
    """

    def __init__(self, low: Stack, high: Stack, chunk: int = 10) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"A chunk holds one token at least; got chunk={chunk}.")
        if not (low.causal and high.causal):
            raise ValueError("Both levels of HiSS read time in order; got a stack that reads later tokens.")
        self.d_model = low.d_model
        self.causal, self.accepts_resets = True, True
        self.chunk = chunk
        self.low, self.high = low, high
        same = low.d_model == high.d_model
        self.up = nn.Identity() if same else Projection(low.d_model, high.d_model)
        self.down = nn.Identity() if same else Projection(high.d_model, low.d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Both stacks before the first token, an empty chunk, nothing held."""
        p = next(self.parameters())
        wide = torch.promote_types(p.dtype, torch.float32)
        chunks = None if max_length is None else max_length // self.chunk + 1
        return State(
            # Room for all tokens and not for a chunk: a call may hold several, of which a cache counts each.
            self.low.init_state(batch, max_length),
            self.high.init_state(batch, chunks),
            torch.zeros(batch, dtype=torch.long, device=p.device),
            torch.zeros(batch, dtype=wide, device=p.device),
            torch.zeros(batch, self.high.d_model, dtype=p.dtype, device=p.device),
        )

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        keep = ~rows
        return State(
            self.low.reset_rows(state.low, rows),
            self.high.reset_rows(state.high, rows),
            state.tokens * keep,
            state.elapsed * keep,
            torch.where(rows[:, None], 0.0, state.held),
        )

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token; the upper stack moves in the rows whose chunk it ends."""
        phase = state.tokens % self.chunk
        feature, low = self.low.step(x_t, self.low.reset_rows(state.low, phase == 0), dt_t=dt_t)
        elapsed = state.elapsed + (1.0 if dt_t is None else dt_t)
        high, held = state.high, state.held
        ends = phase == self.chunk - 1
        if bool(ends.any()):
            whole = None if dt_t is None else elapsed / self.chunk
            y, after = self.high.step(self.up(feature), high, dt_t=whole)
            high, held = select(ends, after, high), torch.where(ends[:, None], y, held)
        elapsed = torch.where(ends, 0.0, elapsed)
        return self.down(held), State(low, high, state.tokens + 1, elapsed, held)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the states, which the caller owns."""
        y_t, after = self.step(x_t, state, dt_t=dt_t)
        y_t = y_t.clone()  # where the widths are one it is the held output itself, which is overwritten later
        overwrite(state, after)
        return y_t

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: one call of the lower stack over all, one of the upper over all ends of chunks.

        Rows whose numbers of whole chunks differ, which resets and states make, go through the upper stack
        in groups of equal number.
        """
        b, t, _ = x.shape
        start = self.init_state(b) if state is None else State(*state)
        marks = torch.zeros(b, t, dtype=torch.bool, device=x.device) if resets is None else resets
        number, piece = stretches(marks, start.tokens)
        phase = number % self.chunk
        y, low = self.low(x, None if state is None else start.low, resets=phase == 0, dt=dt)
        feature, ends = self.up(y), phase == self.chunk - 1
        steps = torch.ones_like(number, dtype=start.elapsed.dtype) if dt is None else dt.to(start.elapsed)
        since = torch.cat([start.elapsed[:, None], start.elapsed[:, None] + steps.cumsum(1)], 1)

        counts = ends.sum(1)
        even = state is None and resets is None
        sizes = [t // self.chunk] if even else counts.unique().tolist()
        groups, outputs, states = [], [], []
        for size in sizes:
            rows = torch.arange(b, device=x.device) if even else (counts == size).nonzero()[:, 0]
            places = ends[rows].nonzero()[:, 1].view(len(rows), size)
            after = take(start.high, rows)
            pieces = piece[rows].gather(1, places)
            last = pieces.new_zeros(len(rows))
            out = feature.new_zeros(len(rows), 0, self.high.d_model)
            if size:
                first = (places - self.chunk + 1).clamp(min=0)
                spans = since[rows].gather(1, places + 1) - since[rows].gather(1, first)
                # A chunk that began before this call holds what the state says of it.
                spans = spans + torch.where(places < self.chunk - 1, start.elapsed[rows, None], 0.0)
                before = torch.cat([last[:, None], pieces[:, :-1]], 1)
                out, after = self.high(
                    feature[rows[:, None], places],
                    after,
                    resets=pieces != before,
                    dt=None if dt is None else spans / self.chunk,
                )
                last = pieces[:, -1]
            after = self.high.reset_rows(after, piece[rows, -1] != last)
            groups.append(rows)
            outputs.append(out)
            states.append(after)
        order = torch.cat(groups).argsort()
        high = states[0] if len(states) == 1 else join(states, order)
        filled = torch.cat([start.held[:, None].to(feature.dtype), join(outputs, order)], 1)
        # A token reads the slot of the last whole chunk, if that is of its own piece; slot 0 is the state.
        slot = ends.cumsum(1)
        owner = torch.zeros(b, filled.shape[1], dtype=piece.dtype, device=x.device)
        owner.scatter_(1, torch.where(ends, slot, 0), torch.where(ends, piece, 0))
        held = filled.gather(1, slot[..., None].expand(-1, -1, filled.shape[2]))
        held = torch.where((owner.gather(1, slot) == piece)[..., None], held, 0.0)
        begun = (phase[:, -1:] + 1) % self.chunk
        kept = since[:, -1:] - since.gather(1, (t - begun).clamp(min=0))
        kept = kept + torch.where(begun > t, start.elapsed[:, None], 0.0)
        return self.down(held), State(low, high, number[:, -1] + 1, kept[:, 0], held[:, -1].clone())

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        return [*self.low.parameter_groups(), *self.high.parameter_groups()]

    @classmethod
    def example(cls) -> "HiSS":
        """A small instance."""
        return cls(Stack.example(), Stack.example(), chunk=3)


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after a pattern ``hiss:LOW:HIGH``; ``hiss:LOW`` has the same kinds in both levels.

    ``options``: ``chunk``, and ``width`` of the upper level (the lower one's where it is left out).

    Raises:
        ValueError: more than two patterns.
    """
    if len(stacks) > 2:
        raise ValueError(f"hiss takes a pattern for each of its two levels; got {len(stacks)}.")
    given = dict(options)
    width = int(given.pop("width", d_model))
    return {"low": stacks[0](d_model, depth), "high": stacks[-1](width, depth), **given}
