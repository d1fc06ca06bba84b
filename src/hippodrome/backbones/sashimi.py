"""SaShiMi: stacks at several rates of time, pooled on the way down and joined to skips on the way up."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones._rows import join, overwrite, select, take
from hippodrome.backbones.stack import Stack
from hippodrome.layers.projection import Projection
from hippodrome.mixers._attention import stretches
from hippodrome.mixers.base import ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class Level(NamedTuple):
    """What one rate of time carries, of a pool of p tokens."""

    phase: Int[Tensor, "b"]
    """Tokens in the pool that is being filled."""
    held: Float[Tensor, "b q d"]
    """The last q = p - 1 tokens that went into pools since the last reset, newest last, else zeros."""
    steps: Float[Tensor, "b q"]
    """Their time steps; ones where there are none."""
    block: Float[Tensor, "b p d"]
    """What the coarser rate made of the last full pool, one value a token of the next; zeros before it."""
    down: tuple
    up: tuple


class State(NamedTuple):
    """What all rates carry, finest first, and the centre."""

    levels: tuple[Level, ...]
    centre: tuple


class Frames(NamedTuple):
    """The full pools of some tokens, row by row, behind as many that are none as make the rows even."""

    ends: Int[Tensor, "b s"]
    """The place of each pool's last token."""
    piece: Int[Tensor, "b s"]
    """The piece between resets that it is of; -1 of what is no pool."""


class Sashimi(nn.Module):
    """A U-net over time: y = up_0(z_0), z_k = down_k(x_k) skipped + upsampled(y_{k+1}), y_K = centre(x_K).

    Goel, Gu, Donahue, Ré 2022, "It's raw! Audio generation with state-space models", arXiv 2202.09729,
    section 4.2. Pooling sets p tokens side by side and maps them to one of the next rate; upsampling maps one
    to p, **one coarse step late**: what the tokens of pool j become is added to those of pool j + 1, so that
    no token sees what came after it. Here every stack but the last goes without its last norm, since a stream
    of residuals runs through all of them.

    A token costs its own rate's stacks; the coarser ones move where a pool is full, every p-th token. Pools
    begin at the first token of a row and at every reset, so a call may have any length and end anywhere: the
    state holds what is in a pool that is not full. With ``dt`` a pool's step is the mean of its tokens'.

    Args:
        centre: the stack at the coarsest rate.
        ups: the stacks behind the skips, finest rate first; the width of each is that of its rate.
        pool: tokens a pool at each rate, as many as ``ups``.
        downs: stacks in front of the pools, finest first; None for none, as in the paper's autoregressive
            models.

    Raises:
        ValueError: not one pool and stack a rate, a pool below one token, widths of one rate that differ, or
            a stack that reads later tokens.
    """

    def __init__(
        self, centre: Stack, ups: list[Stack], pool: list[int], downs: list[Stack] | None = None
    ) -> None:
        super().__init__()
        if not ups or len(pool) != len(ups) or (downs is not None and len(downs) != len(ups)):
            raise ValueError(
                f"SaShiMi has one pool and one stack above it at each rate, at least one; got "
                f"{len(pool)} pools, {len(ups)} stacks on the way up"
                + (f" and {len(downs)} on the way down." if downs is not None else ".")
            )
        if min(pool) < 1:
            raise ValueError(f"A pool holds one token at least; got pool={pool}.")
        stacks = [centre, *ups, *(downs or [])]
        if not all(stack.causal for stack in stacks):
            raise ValueError("SaShiMi reads time in order; got a stack that reads later tokens.")
        for up, down in zip(ups, downs or [], strict=False):
            if up.d_model != down.d_model:
                raise ValueError(
                    f"The stacks of one rate have one width; got {down.d_model} on the way down and "
                    f"{up.d_model} on the way up."
                )
        self.d_model = ups[0].d_model
        self.causal = True
        self.accepts_resets = all(stack.accepts_resets for stack in stacks)
        self.pool = list(pool)
        self.centre = centre
        self.ups: Any = nn.ModuleList(ups)
        self.downs: Any = nn.ModuleList(downs or [])
        widths = [*(up.d_model for up in ups), centre.d_model]
        rates = list(zip(pool, widths[:-1], widths[1:], strict=True))
        self.pools: Any = nn.ModuleList(Projection(p * fine, coarse) for p, fine, coarse in rates)
        self.unpools: Any = nn.ModuleList(Projection(coarse, p * fine) for p, fine, coarse in rates)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """All stacks before the first token, empty pools, nothing made of them."""
        weight = next(self.parameters())
        wide = torch.promote_types(weight.dtype, torch.float32)
        levels, most = [], max_length
        for k, p in enumerate(self.pool):
            d = self.ups[k].d_model
            levels.append(
                Level(
                    torch.zeros(batch, dtype=torch.long, device=weight.device),
                    weight.new_zeros(batch, p - 1, d),
                    weight.new_ones(batch, p - 1, dtype=wide),
                    weight.new_zeros(batch, p, d),
                    self.downs[k].init_state(batch, most) if self.downs else (),
                    self.ups[k].init_state(batch, most),
                )
            )
            most = None if most is None else max(1, -(-most // p))
        return State(tuple(levels), self.centre.init_state(batch, most))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        levels, first = [], len(self.pool) - len(state.levels)
        for k, level in enumerate(state.levels, first):
            phase, held, steps, block, down, up = level
            levels.append(
                Level(
                    phase * ~rows,
                    torch.where(rows[:, None, None], 0.0, held),
                    torch.where(rows[:, None], 1.0, steps),
                    torch.where(rows[:, None, None], 0.0, block),
                    self.downs[k].reset_rows(down, rows) if self.downs else (),
                    self.ups[k].reset_rows(up, rows),
                )
            )
        return State(tuple(levels), self.centre.reset_rows(state.centre, rows))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token; the coarser rates move in the rows whose pool it fills."""
        levels, centre = State(*state)
        if not levels:
            y_t, centre = self.centre.step(x_t, centre, dt_t=dt_t)
            return y_t, State((), centre)
        (phase, held, steps, block, down, up), inner = levels[0], State(levels[1:], centre)
        k = len(self.pool) - len(levels)
        pooled = x_t
        if self.downs:
            pooled, down = self.downs[k].step(x_t, down, dt_t=dt_t)
        late = block.gather(1, phase[:, None, None].expand(-1, 1, block.shape[2]))[:, 0]
        tokens, times = _pushed(held, steps, pooled, dt_t)
        full = phase == self.pool[k] - 1
        if bool(full.any()):
            whole = None if dt_t is None else times.mean(1)
            z, after = self.step(self.pools[k](tokens.flatten(1)), inner, dt_t=whole)
            inner = select(full, after, inner)
            block = torch.where(full[:, None, None], self.unpools[k](z).view_as(block), block)
        y_t, up = self.ups[k].step(x_t + late, up, dt_t=dt_t)
        level = Level((phase + 1) % self.pool[k], tokens[:, 1:], times[:, 1:], block, down, up)
        return y_t, State((level, *inner.levels), inner.centre)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the states, which the caller owns."""
        levels, centre = State(*state)
        if not levels:
            return self.centre.advance_(x_t, centre, dt_t=dt_t)
        (phase, held, steps, block, down, up), inner = levels[0], State(levels[1:], centre)
        k = len(self.pool) - len(levels)
        pooled = self.downs[k].advance_(x_t, down, dt_t=dt_t) if self.downs else x_t
        late = block.gather(1, phase[:, None, None].expand(-1, 1, block.shape[2]))[:, 0]
        tokens, times = _pushed(held, steps, pooled, dt_t)
        full = phase == self.pool[k] - 1
        if bool(full.any()):
            frame = self.pools[k](tokens.flatten(1))
            whole = None if dt_t is None else times.mean(1)
            if bool(full.all()):
                block.copy_(self.unpools[k](self.advance_(frame, inner, dt_t=whole)).view_as(block))
            else:
                z, after = self.step(frame, inner, dt_t=whole)
                overwrite(inner, select(full, after, inner))
                block.copy_(torch.where(full[:, None, None], self.unpools[k](z).view_as(block), block))
        held.copy_(tokens[:, 1:])
        steps.copy_(times[:, 1:])
        phase.copy_((phase + 1) % self.pool[k])
        return self.ups[k].advance_(x_t + late, up, dt_t=dt_t)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: each stack once over all tokens of its rate.

        After a state, rows whose numbers of full pools differ go through the coarser rates in groups of equal
        number. Without one, what is missing stands in front, where a row has no past.
        """
        return self._rate(0, x, None if state is None else State(*state), resets, dt)

    def _rate(
        self, k: int, x: Tensor, state: State | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, State]:
        """``forward`` from one rate on; the state is of that rate and the coarser ones."""
        if k == len(self.pool):
            y, centre = self.centre(x, None if state is None else state.centre, resets=resets, dt=dt)
            return y, State((), centre)
        level = None if state is None else state.levels[0]
        down: tuple = ()
        pooled = x
        if self.downs:
            pooled, down = self.downs[k](x, None if level is None else level.down, resets=resets, dt=dt)
        if state is None and resets is None:
            late, (phase, held, steps, block), inner = self._even(k, pooled, dt)
        else:
            late, (phase, held, steps, block), inner = self._uneven(k, pooled, state, resets, dt)
        y, up = self.ups[k](x + late, None if level is None else level.up, resets=resets, dt=dt)
        return y, State((Level(phase, held, steps, block, down, up), *inner.levels), inner.centre)

    def _even(self, k: int, x: Tensor, dt: Tensor | None) -> tuple[Tensor, tuple, State]:
        """What the coarser rates add to each token, what this rate carries of its pools, and their state.

        Rows that all begin here, without resets: pools lie side by side.
        """
        (b, t, d), p = x.shape, self.pool[k]
        size = t // p
        block = x.new_zeros(b, 1, p, d)
        if not size:
            inner = self._before(k + 1, b)
        else:
            frames = self.pools[k](x[:, : size * p].reshape(b, size, p * d))
            whole = None if dt is None else dt[:, : size * p].unflatten(1, (size, p)).mean(-1)
            z, inner = self._rate(k + 1, frames, None, None, whole)
            block = torch.cat([block, self.unpools[k](z).unflatten(-1, (p, d))], 1)
        late = block.flatten(1, 2)[:, :t]
        phase = torch.full((b,), t % p, dtype=torch.long, device=x.device)
        wide = torch.promote_types(x.dtype, torch.float32)
        times = torch.ones(b, t, dtype=wide, device=x.device) if dt is None else dt.to(wide)
        missing, first = max(0, p - 1 - t), max(0, t - p + 1)
        held = F.pad(x[:, first:], (0, 0, missing, 0))
        steps = F.pad(times[:, first:], (missing, 0), value=1.0)
        # A copy, which does not keep what was made of all pools.
        return late, (phase, held, steps, block[:, -1].clone()), inner

    def _uneven(
        self, k: int, x: Tensor, state: State | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, tuple, State]:
        """The same for rows whose pools begin anywhere."""
        (b, t, d), p = x.shape, self.pool[k]
        before = self._before(k, b) if state is None else state
        start = before.levels[0]
        marks = torch.zeros(b, t, dtype=torch.bool, device=x.device) if resets is None else resets
        number, piece = stretches(marks, start.phase)
        ends = number % p == p - 1
        times = torch.ones(b, t, device=x.device) if dt is None else dt
        tokens = torch.cat([start.held.to(x.dtype), x], 1)
        times = torch.cat([start.steps, times.to(start.steps.dtype)], 1)

        counts = ends.sum(1)
        sizes = [int(counts.max())] if state is None else counts.unique().tolist()
        groups, blocks, owners, inners = [], [], [], []
        for size in sizes:
            rows = torch.arange(b, device=x.device) if len(sizes) == 1 else (counts == size).nonzero()[:, 0]
            frames = _full(ends[rows], piece[rows], size)
            inner = None if state is None else take(State(before.levels[1:], before.centre), rows)
            out, inner = self._frames(k, tokens[rows], times[rows], frames, inner, dt is not None)
            last = frames.piece[:, -1] if size else piece.new_full((len(rows),), -1 if state is None else 0)
            inner = self.reset_rows(inner, piece[rows, -1] != last)
            groups.append(rows)
            blocks.append(torch.cat([start.block[rows, None].to(out.dtype), out], 1))
            owners.append(torch.cat([torch.zeros_like(piece[rows, :1]), frames.piece], 1))
            inners.append(inner)
        order = torch.cat(groups).argsort()
        inner = inners[0] if len(inners) == 1 else join(inners, order)
        made, owner = join(blocks, order), join(owners, order)

        # A token reads the last pool that was full before it, if of its own piece; slot 0 is the state.
        def slots(full: Tensor) -> Tensor:
            """Where the newest of so many full pools lies, since pools that are none come first."""
            skipped = (max(sizes) if state is None else counts[:, None]) - counts[:, None]
            return torch.where(full > 0, full + skipped, 0)

        slot = slots(ends.cumsum(1) - ends.long())
        place = (slot * p + number % p)[..., None].expand(-1, -1, d)
        late = made.flatten(1, 2).gather(1, place)
        late = torch.where((owner.gather(1, slot) == piece)[..., None], late, 0.0)
        newest = slots(counts[:, None])
        block = made[torch.arange(b, device=x.device), newest[:, 0]]
        block = torch.where((owner.gather(1, newest) == piece[:, -1:])[..., None], block, 0.0)
        # Of the last tokens only those of the last piece go on; the state's own are zeros before a reset.
        age = torch.arange(p - 1, 0, -1, device=x.device)
        begun = piece[:, -1:] == 0
        kept = begun | (age <= number[:, -1:] + 1)
        held = torch.where(kept[..., None], tokens[:, t:], 0.0)
        steps = torch.where(kept, times[:, t:], 1.0)
        return late, ((number[:, -1] + 1) % p, held, steps, block), inner

    def _frames(
        self, k: int, tokens: Tensor, times: Tensor, frames: Frames, inner: State | None, timed: bool
    ) -> tuple[Tensor, State]:
        """What the coarser rates make of pools, (b, s, p, d), and their state after them."""
        (b, _, d), p, size = tokens.shape, self.pool[k], frames.ends.shape[1]
        if not size:
            return tokens.new_zeros(b, 0, p, d), self._before(k + 1, b) if inner is None else inner
        place = frames.ends[..., None] + torch.arange(p, device=tokens.device)
        row = torch.arange(b, device=tokens.device)[:, None, None]
        first = frames.piece.new_full((b, 1), -1 if inner is None else 0)
        starts = frames.piece != torch.cat([first, frames.piece[:, :-1]], 1)
        whole = times[row, place].mean(-1) if timed else None
        z, inner = self._rate(k + 1, self.pools[k](tokens[row, place].flatten(2)), inner, starts, whole)
        return self.unpools[k](z).unflatten(-1, (p, d)), inner

    def _before(self, k: int, batch: int) -> State:
        """The state before the first token of one rate and the coarser ones."""
        whole = self.init_state(batch)
        return State(whole.levels[k:], whole.centre)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        stacks: list[Any] = [*self.downs, self.centre, *self.ups]
        return [group for stack in stacks for group in stack.parameter_groups()]

    @classmethod
    def example(cls) -> "Sashimi":
        """A small instance."""
        return cls(Stack.example(), [Stack.example(), Stack.example()], [2, 3])


def _pushed(held: Tensor, steps: Tensor, x_t: Tensor, dt_t: Tensor | None) -> tuple[Tensor, Tensor]:
    """The last tokens and their time steps with one more behind them."""
    time = torch.ones_like(x_t[:, 0]) if dt_t is None else dt_t
    tokens = torch.cat([held.to(x_t.dtype), x_t[:, None]], 1)
    return tokens, torch.cat([steps, time[:, None].to(steps.dtype)], 1)


def _full(ends: Tensor, piece: Tensor, size: int) -> Frames:
    """The last ``size`` full pools of each row; where a row has fewer, others in front that are none."""
    place = ends.long().argsort(dim=1, stable=True)[:, ends.shape[1] - size :]
    return Frames(place, torch.where(ends.gather(1, place), piece.gather(1, place), -1))


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after a pattern ``sashimi:PATTERN``, or ``sashimi:FINEST:..:CENTRE`` with one a rate.

    ``options``: ``pool`` (tokens a pool at each rate, [4, 4]), ``expand`` (how much wider each coarser rate
    is, 2), ``unet`` (whether stacks stand on the way down too, no), ``hidden`` (hidden channels of a block's
    perceptron for each of its own; its own choice where left out).

    Raises:
        ValueError: an option that there is not, or neither one pattern nor one a rate.
    """
    known = {"pool": [4, 4], "expand": 2, "unet": False, "hidden": None}
    for name in options:
        if name not in known:
            raise ValueError(f"sashimi has no option {name!r}; it knows {', '.join(map(repr, known))}.")
    pool, expand, unet, hidden = ({**known, **options}[name] for name in known)
    if not isinstance(pool, list) or not pool:
        raise ValueError(f"sashimi's pool is a list of tokens a pool, such as [4, 4]; got {pool!r}.")
    if len(stacks) not in (1, len(pool) + 1):
        raise ValueError(
            f"sashimi takes one pattern, or one for each of its {len(pool) + 1} rates; got {len(stacks)}."
        )

    def stack(rate: int, norm: bool = False) -> dict[str, Any]:
        width = d_model * expand**rate
        made = stacks[rate if len(stacks) > 1 else 0](width, depth)
        for block in made["blocks"]:
            if hidden is not None and block["mlp"] is not None:
                block["mlp"] = {**block["mlp"], "d_hidden": hidden * width}
        return {**made, "norm": norm}

    rates = range(len(pool))
    return {
        "centre": stack(len(pool)),
        "ups": [stack(rate, norm=rate == 0) for rate in rates],
        "pool": pool,
        "downs": [stack(rate) for rate in rates] if unet else None,
    }
