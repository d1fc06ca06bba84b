"""Shared attention: a stack of state spaces some of whose layers also hear a transformer block used again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.backbones._rows import overwrite
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.mlp import Activation, activation_function
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.base import ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What is carried from token to token."""

    stack: tuple
    """The states of the stack's blocks."""
    shared: tuple
    """The caches of attention, one for each use: the parameters are shared, what they saw is not."""


class SharedAttention(nn.Module):
    """A block that hears attention is h + mixer(norm(h + W_u T_s([h | x]))), where x is the backbone's
    input, T_s one of a few shared transformer blocks in turn and u the use; the other blocks are as they are.

    T(c) = fc2(v gelu(gate)) with [gate | v] = (fc1 + up_u down_u) norm(W_o attention(norm(c))): attention
    over heads of the doubled width, scores over the square root of half a head's size, no residual inside.
    Zamba2: Glorioso et al. 2024, "The Zamba2 suite", arXiv 2411.15242; Zamba: Glorioso et al. 2024, arXiv
    2405.16712, equation 6 and figure 2. Each use has a low-rank change (up_u down_u) of its own in the
    perceptron, and with ``attention_rank`` one in each of the maps to queries, keys and values. Norms of
    shared blocks add what those of the stack's last block do.

    Args:
        stack: the blocks below and between; its last norm comes last.
        uses: numbers of the blocks, from 0, that hear a shared block, in ascending order.
        shared: how many shared blocks there are; they take turns.
        heads: of attention; None takes heads of 64 of the 2 d channels.
        kv_heads: of keys and values; None takes as many.
        d_hidden: channels inside a shared block's perceptron; None takes 4 d.
        rank: of the change that each use makes to the first map of the perceptron.
        rope: whether attention has rotary positions.
        activation: of the perceptron's gate.
        attention_rank: of the changes that each use makes to the maps to queries, keys and values; None for
            no such changes.
        bias: whether both maps of the perceptron have biases.
        rope_base: the longest rotary wavelength is 2 pi times this.

    Raises:
        ValueError: no use, uses that are no ascending blocks of the stack, more shared blocks than uses, a
            stack that reads later tokens or recomputes.
    """

    def __init__(
        self,
        stack: Stack,
        uses: list[int],
        shared: int = 1,
        heads: int | None = None,
        kv_heads: int | None = None,
        d_hidden: int | None = None,
        rank: int = 128,
        rope: bool = False,
        activation: Activation = "gelu",
        attention_rank: int | None = None,
        bias: bool = False,
        rope_base: float = 10000.0,
    ) -> None:
        super().__init__()
        depth, d = len(stack.blocks), stack.d_model
        if not uses or sorted(set(uses)) != list(uses) or not 0 <= uses[0] <= uses[-1] < depth:
            raise ValueError(
                f"uses are ascending numbers of blocks from 0 to {depth - 1}, one at least; got {uses}."
            )
        if not 1 <= shared <= len(uses):
            raise ValueError(
                f"Each shared block is used once at least; got {shared} of them for {len(uses)} uses."
            )
        if not stack.causal or stack.recompute:
            raise ValueError(
                "Shared attention takes a stack that reads the past alone and keeps what it computed; got "
                + ("one that recomputes." if stack.causal else "one that reads later tokens.")
            )
        self.d_model = d
        self.causal, self.accepts_resets = True, stack.accepts_resets
        self.stack, self.uses = stack, list(uses)
        hidden = 4 * d if d_hidden is None else d_hidden
        last: Any = stack.blocks[-1]
        self.shared = nn.ModuleList(
            _Shared(d, heads, kv_heads, hidden, rope, activation, bias, rope_base, last.norm_eps)
            for _ in range(shared)
        )
        attention = self._block(0).attention
        groups = attention.heads, attention.kv_heads, attention.kv_heads
        sizes = [count * attention.size for count in groups]
        self.adapted = nn.ModuleList(_Use(d, hidden, rank, attention_rank, sizes) for _ in uses)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """The states of the blocks, and an empty cache for each use."""
        caches = (self._block(u).attention.init_state(batch, max_length) for u in range(len(self.uses)))
        return State(self.stack.init_state(batch, max_length), tuple(caches))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        caches = (self._block(u).attention.reset_rows(c, rows) for u, c in enumerate(state.shared))
        return State(self.stack.reset_rows(state.stack, rows), tuple(caches))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: (b, d) to (b, d) and the next states."""

        def attend(u: int, c: Tensor, more: Tensor | None) -> tuple[Tensor, tuple]:
            return self._block(u).attention.step(c, state.shared[u], more_t=more)

        def mix(block: Block, i: int, h: Tensor) -> tuple[Tensor, tuple]:
            return block.mixer.step(h, state.stack[i], dt_t=dt_t)

        return self._run(x_t, attend, mix)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the states, which the caller owns."""
        if torch.is_grad_enabled():
            y_t, after = self.step(x_t, state, dt_t=dt_t)
            overwrite(state, after)
            return y_t

        def attend(u: int, c: Tensor, more: Tensor | None) -> tuple[Tensor, tuple]:
            return self._block(u).attention.advance_(c, state.shared[u], more_t=more), ()

        def mix(block: Block, i: int, h: Tensor) -> tuple[Tensor, tuple]:
            return block.mixer.advance_(h, state.stack[i], dt_t=dt_t), ()

        return self._run(x_t, attend, mix)[0]

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: (b, t, d) to (b, t, d) and the states after them."""

        def attend(u: int, c: Tensor, more: Tensor | None) -> tuple[Tensor, tuple]:
            cache = None if state is None else state.shared[u]
            return self._block(u).attention(c, cache, resets=resets, more=more)

        def mix(block: Block, i: int, h: Tensor) -> tuple[Tensor, tuple]:
            return block.mixer(h, None if state is None else state.stack[i], resets=resets, dt=dt)

        return self._run(x, attend, mix)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        attentions = (self._block(i).attention for i in range(len(self.shared)))
        inside = [group for attention in attentions for group in attention.parameter_groups()]
        return [*self.stack.parameter_groups(), *inside]

    def _block(self, use: int) -> Any:
        """The shared block of a use."""
        return self.shared[use % len(self.shared)]

    def _run(
        self,
        x: Tensor,
        attend: Callable[[int, Tensor, Tensor | None], tuple[Tensor, tuple]],
        mix: Callable[[Block, int, Tensor], tuple[Tensor, tuple]],
    ) -> tuple[Tensor, State]:
        """All blocks over tokens of any number; ``attend`` and ``mix`` run what carries a state."""
        h, mixed, caches = x, [], []
        for i, block in enumerate(self.stack.blocks):
            assert isinstance(block, Block)
            heard = h
            if i in self.uses:
                use = self.uses.index(i)
                own: Any = self.adapted[use]
                shared = self._block(use)
                c = shared.norm(torch.cat([h, x], -1))
                y, cache = attend(use, c, own.heads(c))
                heard = h + own.linear(shared.perceptron(y, own))
                caches.append(cache)
            y, after = mix(block, i, block.heard(heard))
            h = block.finish(h, y)
            mixed.append(after)
        return self.stack.norm(h), State(tuple(mixed), tuple(caches))

    @classmethod
    def example(cls) -> "SharedAttention":
        """A small instance."""
        return cls(Stack.example(), [1], heads=2, d_hidden=8, rank=2)


class _Shared(nn.Module):
    """A transformer block over the doubled width, less what a use adds; its attention carries the state."""

    def __init__(
        self,
        d: int,
        heads: int | None,
        kv_heads: int | None,
        hidden: int,
        rope: bool,
        activation: Activation,
        bias: bool,
        rope_base: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(2 * d, eps)
        self.attention = Attention(2 * d, heads, kv_heads, rope=rope, rope_base=rope_base, mixed=False)
        self.attention.scale = (self.attention.size / 2) ** -0.5
        self.out = Projection(2 * d, d, bias=False)
        self.mlp_norm = RMSNorm(d, eps)
        self.fc1 = Projection(d, 2 * hidden, bias=bias)
        self.fc2 = Projection(hidden, d, bias=bias)
        self.function = activation_function(activation)

    def perceptron(self, y: Tensor, own: "_Use") -> Tensor:
        """What follows attention, with one use's change."""
        y = self.mlp_norm(self.out(y))
        gate, v = (self.fc1(y) + own.up(own.down(y))).chunk(2, -1)
        return self.fc2(self.function(gate) * v)


class _Use(nn.Module):
    """What is a use's own: its changes of the shared block, nothing at first, and the map to its layer."""

    def __init__(self, d: int, hidden: int, rank: int, attention_rank: int | None, sizes: list[int]) -> None:
        super().__init__()
        self.down = Projection(d, rank, bias=False)
        self.up = Projection(rank, 2 * hidden, bias=False)
        self.linear = Projection(d, d, bias=False)
        nn.init.zeros_(self.up.weight)
        # One map down for queries, keys and values, and one up for each.
        self.heads_down = (
            None if attention_rank is None else Projection(2 * d, 3 * attention_rank, bias=False)
        )
        self.heads_up = nn.ModuleList(
            Projection(attention_rank, size, bias=False) for size in sizes if attention_rank is not None
        )
        for one in self.heads_up:
            nn.init.zeros_(one.weight)  # type: ignore[arg-type]

    def heads(self, c: Tensor) -> Tensor | None:
        """The changes of queries, keys and values side by side; None where there are none."""
        if self.heads_down is None:
            return None
        parts = zip(self.heads_up, self.heads_down(c).chunk(3, -1), strict=True)
        return torch.cat([up(low) for up, low in parts], -1)


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after a pattern ``shared_attention:mamba2``.

    ``options``: the constructor's; without ``uses`` every ``every``-th block (6) hears a shared one, and in a
    stack of fewer the last.

    Raises:
        ValueError: more than one pattern.
    """
    if len(stacks) != 1:
        raise ValueError(f"shared_attention takes the pattern of one stack; got {len(stacks)}.")
    given, stack = dict(options), stacks[0](d_model, depth)
    every, blocks = int(given.pop("every", 6)), len(stack["blocks"])
    given.setdefault("uses", list(range(every, blocks, every)) or [blocks - 1])
    return {"stack": stack, **given}
