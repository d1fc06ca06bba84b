"""Mixture of memories: several matrix states; each token writes and reads the few it is routed to."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import NoConv, ShortConv
from hippodrome.mixers._memories import CONVOLVED, Given, build_rule
from hippodrome.mixers._routing import Balance, Balanced, Pieces, Route, balance, pack, route
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

GAIN = 2**-2.5
"""Of the uniform first values of all linear maps (Glorot, Bengio 2010), as the authors' code has it."""


class State(NamedTuple):
    """What a mixture of memories carries from token to token; the shared memory is the last."""

    window: Float[Tensor, "b m w_1 e"]
    """Last inputs of the short convolution that each memory took in, oldest first."""
    S: Float[Tensor, "b m h _ _"]
    """The matrices of each memory, in float32 or wider."""


class _Driven(NamedTuple):
    """Of p pieces of at most l tokens, what stands beside that which the rule is given."""

    mixed: Float[Tensor, "p l e"]
    """Queries, keys and values before the convolution."""
    resets: Resets | None
    stretch: Tensor | None
    """How many resets of the row came before each token, or at it."""
    valid: Bool[Tensor, "p l"]


class MixtureOfMemories(Mixer):
    """s = softmax(W_r x) over M memories, renormalized over its k largest; memory m takes in the tokens that
    chose it, S_m = rule(S_m; q, k_m, v_m); o = sum_m s_m read(S_m, q) + read(S_shared, q); out_proj(RMS(o)
    silu(gate(x))).

    Du, Sun, Lan, Hu, Cheng 2025, "MoM: linear sequence modeling with mixture-of-memories", arXiv 2502.13685,
    section 3, equations of the router, the memory update and the mixture; rules by name: "linear" (S + k
    v^T), "retention" (gamma S + k v^T), "gla", "hgrn2" (key channels fade by alpha; k = 1 - alpha), "mamba2"
    (exp(dt A) S + dt k v^T), "delta" and "gated_delta".

    A memory is left as it is by a token that did not choose it: its matrices and the window of its
    convolution move over its own tokens alone, the query's too. Queries are shared by all memories, and so
    are the taps of the convolution and what a rule learns of time scales (A, dt_bias, the second map of
    "gla"); keys, values and gates are a memory's own. Nothing is truncated: a memory takes all tokens that
    choose it.

    ``forward`` packs tokens by memory, so that work grows with k and not with M. Sizes then depend on values,
    which an accelerator waits for. A compiler takes the form in which all memories see all tokens.

    In training the gradient of ``balance`` times M sum_m f_m P_m is added, where f_m is the part of the
    call's tokens that choose m and P_m their mean weight; each layer counts for itself. ``balance_of`` reads
    it. With k = 1 the one weight is one, and this is all that the router learns from.

    Args:
        d_model: channels in and out.
        rule: what a memory does with a token.
        memories: M, without the shared one.
        active: k, how many each token chooses.
        heads: matrices of a memory.
        head_dim: channels of a query or key; None takes d_model / heads.
        expand: channels of a value as a multiple of head_dim.
        shared: whether one more memory takes in every token, and is read with weight one.
        single_kv: whether keys, values and gates are the same for all memories.
        taps: of the short convolution with silu over q, k, v; 0 for none; None takes 4 for the delta rules
            and "mamba2", none for others.
        gate_rank: rank of the map to the decays of "gla".
        balance: weight of the loss that spreads tokens evenly.

    Raises:
        ValueError: an unknown rule, active not between 1 and memories, or head_dim is None and the heads do
            not divide d_model.
    """

    def __init__(
        self,
        d_model: int,
        rule: str = "gated_delta",
        memories: int = 4,
        active: int = 2,
        heads: int = 4,
        head_dim: int | None = None,
        expand: int = 1,
        shared: bool = True,
        single_kv: bool = False,
        taps: int | None = None,
        gate_rank: int = 16,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= active <= memories:
            raise ValueError(
                f"A token chooses at least one memory and at most all; got active={active} of "
                f"memories={memories}. Choose active between 1 and {max(memories, 1)}."
            )
        if head_dim is None:
            check_divides("heads", heads, "d_model", d_model)
            head_dim = d_model // heads
        self.d_model = d_model
        self.memories = memories
        self.active = active
        self.heads = heads
        self.shared = shared
        self.balance = balance
        self.rule = build_rule(rule, heads, head_dim, expand * head_dim, gate_rank)
        keys, values = heads * head_dim, heads * expand * head_dim
        self.values = values
        self.own = [keys if self.rule.keyed else 0, values, self.rule.gates]
        inner = keys + self.own[0] + values
        taps = (4 if rule in CONVOLVED else 0) if taps is None else taps
        self.conv: ShortConv | NoConv = ShortConv(inner, taps, silu=True) if taps else NoConv(inner)
        self.channels = [keys, *self.own[:2]]
        self.router = Projection(d_model, memories, bias=False)
        self.in_proj = Projection(d_model, keys + values, bias=False)
        maps = 1 if single_kv else memories + shared
        self.kv_proj = nn.ModuleList(Projection(d_model, sum(self.own), bias=False) for _ in range(maps))
        self.norm = RMSNorm(expand * head_dim)
        self.out_proj = Projection(values, d_model, bias=False)
        self._initialize([keys, values])

    def _initialize(self, shared: list[int]) -> None:
        cuts: list[tuple[nn.Module, list[int]]] = [(self.router, [self.memories]), (self.in_proj, shared)]
        cuts += [(self.out_proj, [self.d_model])]
        cuts += [(layer, self.own) for layer in self.kv_proj]
        with torch.no_grad():
            for layer, sizes in cuts:
                # Each map by its own size, though they lie side by side in one.
                for part in layer.get_parameter("weight").split([size for size in sizes if size]):
                    nn.init.xavier_uniform_(part, gain=GAIN)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        count = self.memories + self.shared
        window = self.conv.init_window(batch)[:, None].repeat(1, count, 1, 1)
        return State(window, window.new_zeros(batch, count, self.heads, *self.rule.matrix))

    def route(self, x: Float[Tensor, "*tokens d"]) -> Route:
        """Which memories tokens choose, and how they weigh what those hold; without the shared one."""
        return route(self.router(x), self.active)

    def balance_of(self, x: Sequence) -> Balance:
        """How evenly the tokens of an input are spread over the memories, with the loss of training."""
        return balance(self.route(x))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: every memory's update, kept where the token chose it."""
        self.refuse_dt(dt_t)
        weights, chosen = self.route(x_t)
        q, gate = self.in_proj(x_t).split([self.channels[0], self.values], -1)
        read = state.S.new_zeros(())
        windows, matrices = [], []
        for m in range(self.memories + self.shared):
            kv, raw = self._map(m)(x_t).split([sum(self.own[:2]), self.own[2]], -1)
            inner, window = self.conv.step(torch.cat([q, kv], -1), state.window[:, m])
            y, S = self.rule.write(self._cut(inner, raw), state.S[:, m])
            if m < self.memories:
                keep = chosen[:, m, None, None]
                window = torch.where(keep, window, state.window[:, m])
                S = torch.where(keep[..., None], S, state.S[:, m])
                y = y * weights[:, m, None, None]
            read = read + y
            windows.append(window)
            matrices.append(S)
        return self._leave(read, gate), State(torch.stack(windows, 1), torch.stack(matrices, 1))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, packed by memory; the shared memory takes them as they are."""
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        weights, chosen = self.route(x)
        if self.training and self.balance:
            weights = Balanced.apply(weights, chosen, self.balance)
        q, gate = self.in_proj(x).split([self.channels[0], self.values], -1)
        state = self.init_state(b) if state is None else state
        window, S = state
        segments = None if resets is None else resets.cumsum(1)
        if segments is not None:
            # A memory that takes in no token after a reset ends empty all the same.
            emptied = segments[:, -1, None, None, None] > 0
            window, S = window.masked_fill(emptied, 0.0), S.masked_fill(emptied[..., None], 0.0)
        read = S.new_zeros(b * t, self.heads, self.values // self.heads)
        for pieces in pack(chosen):
            y, *after = self._run(x, q, state, pieces, segments)
            rows, memories = pieces.rows, pieces.memories
            weight = weights[rows[:, None], pieces.tokens, memories[:, None]] * pieces.valid()
            y = y * weight[..., None, None]
            flat = (rows[:, None] * t + pieces.tokens).flatten()
            read = read.index_add(0, flat, y.flatten(0, 1).to(read.dtype))
            window, S = (
                held.index_put((rows, memories), new) for held, new in zip((window, S), after, strict=True)
            )
        read = read.view(b, t, self.heads, -1)
        if self.shared:
            kv, raw = self._map(-1)(x).split([sum(self.own[:2]), self.own[2]], -1)
            inner, last = self.conv(torch.cat([q, kv], -1), state.window[:, -1], resets)
            y, matrices = self.rule.scan(self._cut(inner, raw), state.S[:, -1], resets, None)
            read = read + y
            window = torch.cat([window[:, :-1], last[:, None]], 1)
            S = torch.cat([S[:, :-1], matrices[:, None]], 1)
        return self._leave(read, gate), State(window, S)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b mh t t"]:
        """That of each head of the first memory, of the second and so on, the shared one last, times the
        weight that the reading token gives it. Every memory has values of its own, to which its heads'
        matrices belong."""
        self.check_call(x, None, resets)
        b, t, _ = x.shape
        routed = self.route(x)
        # The shared memory is one that every token chooses, with a weight of one.
        weights, chosen = (F.pad(of, (0, int(self.shared)), value=1) for of in routed)
        q = self.in_proj(x)[..., : self.channels[0]]
        window, segments = self.init_state(b).window, None if resets is None else resets.cumsum(1)
        M = weights.new_zeros(b, chosen.shape[-1], t, self.heads, t)
        for pieces in pack(chosen):
            given, drive = self._driven(x, q, window, pieces, segments)
            unit = F.one_hot(pieces.tokens, t).to(M.dtype)[:, :, None].expand(-1, -1, self.heads, -1)
            read, _ = self.rule.scan(given._replace(v=unit), None, drive.resets, drive.valid)
            at = pieces.rows[:, None], pieces.memories[:, None], pieces.tokens
            share = weights[at[0], at[2], at[1]] * drive.valid
            M.index_put_(at, read.to(M.dtype) * share[..., None, None], accumulate=True)
        return M.transpose(2, 3).flatten(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t c"]:
        """Those of each memory in turn, the shared one last; zero at tokens that did not choose it."""
        self.check_call(x, None)
        chosen = F.pad(self.route(x).chosen, (0, int(self.shared)), value=True)
        found = []
        for m in range(self.memories + self.shared):
            logs = self.rule.log_decays(self._map(m)(x)[..., sum(self.own[:2]) :])
            found.append(logs * chosen[..., m, None])
        return torch.cat(found, -1)

    def _driven(
        self, x: Tensor, q: Tensor, window: Tensor, pieces: Pieces, segments: Tensor | None
    ) -> tuple[Given, _Driven]:
        """What the rule is given of the tokens of some pieces (p, l, h, _), and what else drives them."""
        rows, index = pieces.rows[:, None], pieces.tokens
        valid = pieces.valid()
        x, q = x[rows, index], q[rows, index]
        mine = [self._map(m)(part) for m, part in enumerate(x.split(pieces.counts)) if len(part)]
        kv, raw = torch.cat(mine).split([sum(self.own[:2]), self.own[2]], -1)
        mixed = torch.cat([q, kv], -1)
        resets = stretch = None
        if segments is not None:
            stretch = segments[rows, index]
            resets = (stretch != F.pad(stretch[:, :-1], (1, 0))) & valid
        inner, _ = self.conv(mixed, window[pieces.rows, pieces.memories], resets)
        return self._cut(inner, raw), _Driven(mixed, resets, stretch, valid)

    def _run(
        self, x: Tensor, q: Tensor, state: State, pieces: Pieces, segments: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the tokens of some pieces read (p, l, h, v), and the windows and matrices after them."""
        given, drive = self._driven(x, q, state.window, pieces, segments)
        S = state.S[pieces.rows, pieces.memories]
        y, S = self.rule.scan(given, S, drive.resets, drive.valid)
        held = state.window[pieces.rows, pieces.memories]
        # The last tokens of a piece end where it does, not where its row is filled up to.
        taken = pieces.length[:, None] + torch.arange(held.shape[1], device=x.device)
        window = torch.cat([held, drive.mixed.to(held.dtype)], 1)
        window = window.gather(1, taken[..., None].expand(-1, -1, window.shape[-1]))
        if segments is not None and drive.stretch is not None:
            total = segments[pieces.rows, -1]
            stretch = F.pad(drive.stretch, (max(held.shape[1], 1), 0))
            window = window.masked_fill((stretch.gather(1, taken) != total[:, None])[..., None], 0.0)
            place = pieces.length + max(held.shape[1], 1) - 1
            stale = stretch.gather(1, place[:, None])[:, 0] != total
            S = S.masked_fill(stale[:, None, None, None], 0.0)
        return y, window, S

    def _map(self, memory: int) -> nn.Module:
        """The map to keys, values and gates of a memory, the shared one being the last."""
        return self.kv_proj[0 if len(self.kv_proj) == 1 else memory]

    def _cut(self, inner: Tensor, raw: Tensor) -> Given:
        """Queries, keys and values of heads from the channels of the convolution, and the gates."""
        parts = zip(inner.split(self.channels, -1), self.channels, strict=True)
        q, k, v = (m.unflatten(-1, (self.heads, size // self.heads)) for m, size in parts)
        return Given(q, k, v, raw)

    def _leave(self, read: Tensor, gate: Tensor) -> Tensor:
        """A norm over each head, the gate, a linear map."""
        return self.out_proj(self.norm(read.to(gate.dtype)).flatten(-2) * F.silu(gate))

    def parameter_groups(self) -> list[ParameterGroup]:
        """What sets time scales, at 1e-3 at most and without decay."""
        slow = self.rule.slow()
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)] if slow else []

    @classmethod
    def example(cls) -> "MixtureOfMemories":
        """A small instance."""
        return cls(8, memories=3, heads=2, head_dim=3)
